import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { maskedCrc, TensorBoardWriter } from "./tensorboard.ts";

describe("TensorBoard event files", () => {
  it("have the published CRC-32C, masked", () => {
    // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8a9136aa.
    const crc = 0x8a9136aa;
    const masked = (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
    expect(maskedCrc(new Uint8Array(32))).toBe(masked);
  });

  it("frame each event by its length and sums", () => {
    const folder = mkdtempSync(join(tmpdir(), "nautilus-"));
    try {
      {
        using writer = new TensorBoardWriter(folder, 1_700_000_000_000);
        writer.scalar("train/loss", 2.5, { step: 300, wallTimeMs: 1_700_000_000_500 });
      }
      const bytes = readFileSync(join(folder, readdirSync(folder)[0]));
      const events: Buffer[] = [];
      for (let at = 0; at < bytes.length;) {
        const length = Number(bytes.readBigUInt64LE(at));
        expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc(bytes.subarray(at, at + 8)));
        const data = bytes.subarray(at + 12, at + 12 + length);
        expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc(data));
        events.push(data);
        at += 16 + length;
      }
      expect(events).toHaveLength(2);
      // wall_time (field 1, double), step (field 2, varint 300), summary (field 5) with tag and float.
      const expected = Buffer.concat([
        Buffer.from([0x09]),
        Buffer.from(new Float64Array([1_700_000_000.5]).buffer),
        Buffer.from([0x10, 0xac, 0x02, 0x2a, 0x13, 0x0a, 0x11, 0x0a, 0x0a]),
        Buffer.from("train/loss"),
        Buffer.from([0x15]),
        Buffer.from(new Float32Array([2.5]).buffer),
      ]);
      expect(events[1].equals(expected)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
