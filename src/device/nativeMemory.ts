/** Native memory and JavaScript's, each seen from the other. A file of its own, because threads that start with every load need no more than this. */
import koffi from "koffi";

/** Native memory as an ArrayBuffer, without a copy. It must not be touched after the memory is freed. */
export function viewMemory(address: number, byteLength: number): ArrayBuffer {
  return koffi.view(BigInt(address), byteLength);
}

/** The address of JavaScript memory, which does not move; the caller keeps a reference while native code may use it. */
export function addressOfMemory(memory: ArrayBuffer): number {
  return Number(koffi.address(memory));
}
