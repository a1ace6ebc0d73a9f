/** What the threads that read files share with the thread that asks: words to wait on, and for every slot the piece that it is to hold. */

/** Words of the control block. */
export const controlOffset = { numReady: 0, nextTicket: 1 } as const;
export const controlBytes = 8;
/** Float64 words of a slot's piece: descriptor, position, length, the address it goes to, and 1 once all of its bytes are there. */
export const pieceWords = 5;
export const wholeWord = 4;
/** The turn of a slot that no ticket comes to any more. */
export const stopped = -1;

export interface ReaderData {
  readonly control: SharedArrayBuffer;
  readonly turns: SharedArrayBuffer;
  readonly pieces: SharedArrayBuffer;
  readonly numSlots: number;
}
