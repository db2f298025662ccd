/** HMAC-SHA256 for pages over plain http, where browsers offer no crypto.subtle. FIPS 180-4, RFC 2104. */
const BLOCK_BYTES = 64;

/** The first primes. @param {number} count */
function primes(count) {
  /** @type {number[]} */ const found = [];
  for (let candidate = 2; found.length < count; candidate++)
    if (found.every((prime) => candidate % prime)) found.push(candidate);
  return found;
}

/** Of each prime's root the first 32 bits after the point. @param {number} count @param {number} degree */
const roots = (count, degree) => primes(count).map((prime) => ((prime ** (1 / degree)) % 1) * 2 ** 32 | 0);

const INITIAL_STATE = roots(8, 2);
const ROUND_CONSTANTS = roots(64, 3);

/** Rotates 32 bits to the right. @param {number} word @param {number} bits */
const rotate = (word, bits) => (word >>> bits) | (word << (32 - bits));

/** SHA-256 of less than 512 MiB. @param {Uint8Array} bytes */
export function sha256(bytes) {
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) * BLOCK_BYTES);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const words = new DataView(padded.buffer);
  words.setUint32(padded.length - 4, bytes.length * 8);
  const state = Int32Array.from(INITIAL_STATE);
  const schedule = new Int32Array(64);
  for (let start = 0; start < padded.length; start += BLOCK_BYTES) {
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      if (i < 16) schedule[i] = words.getInt32(start + 4 * i);
      else {
        const [x, y] = [schedule[i - 15], schedule[i - 2]];
        const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
        const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
        schedule[i] = schedule[i - 16] + s0 + schedule[i - 7] + s1;
      }
      const mixed = (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g));
      const one = h + mixed + ROUND_CONSTANTS[i] + schedule[i];
      const two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i] += word));
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setInt32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

/** HMAC-SHA256. @param {Uint8Array} key @param {Uint8Array} data */
export function hmacSha256(key, data) {
  const block = new Uint8Array(BLOCK_BYTES);
  block.set(key.length > BLOCK_BYTES ? sha256(key) : key);
  /** @param {number} pad @param {Uint8Array} rest */
  const hash = (pad, rest) => sha256(Uint8Array.from([...block.map((byte) => byte ^ pad), ...rest]));
  return hash(0x5c, hash(0x36, data));
}
