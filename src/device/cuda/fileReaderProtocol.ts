/** What the threads that read files share with the thread that asks: words to wait on, and for every slot the piece that it is to hold. */

/** Words of the control block. */
export const controlOffset = { numReady: 0, nextTicket: 1, isStopped: 2 } as const;
export const controlBytes = 12;
/** Of a slot's piece, as float64, which holds positions beyond 4 GiB: descriptor, position, length, and 1 once all bytes are there. */
export const fieldBytes = 32;
/** The turn of a slot that no ticket comes to any more. */
export const stopped = -1;

export interface ReaderData {
  readonly control: SharedArrayBuffer;
  readonly turns: SharedArrayBuffer;
  readonly pieces: SharedArrayBuffer;
  readonly addresses: readonly number[];
  readonly slotBytes: number;
}
