/**
 * One user's actions: signed, submitted, submitted again while nobody answers. Loaded by scoreboard.js, which hands in `ask`.
 * @typedef {{userId: string, token: string, secret: string, keyVersion: number, skew: number}} Credentials   skew: server's clock - ours, ms
 * @typedef {{url?: string, actionType: string, metadata?: object, credentials: (renew: boolean) => Promise<Credentials>}} Action
 * @typedef {{userId: string, previousScore: number, pointsAwarded: number, newScore: number, newRank: number | null, timestamp: string}} Scored
 */
const TRIES = 4; // of one action, about 8 s; its timestamp is good for 5 min
const FIRST = 600; // ms; ceiling of the first wait, the others double it: full jitter, so that a crowd comes back spread out

/** A refusal by the server, or, with status 0, no answer at all. */
export class Refused extends Error {
  /** @param {{status: number, wait?: number, said?: any}} answer */
  constructor({ status, wait = 0, said }) {
    super(said?.detail);
    this.status = status;
    this.wait = wait;
    /** @type {string} */ this.code = said?.code ?? '';
    /** @type {string} */ this.layer = said?.layer ?? '';
    /** @type {{field: string, message: string}[]} */ this.errors = said?.errors ?? [];
  }
}

/** The value of X-Action-Signature for exactly this body. @param {string} body @param {string} secret @param {number} keyVersion */
export async function signAction(body, secret, keyVersion) {
  const [key, data] = [secret, body].map((text) => new TextEncoder().encode(text));
  const hmac = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const mac = new Uint8Array(await crypto.subtle.sign('HMAC', hmac, data));
  return `v${keyVersion}.` + Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * Submits one action, once: while nobody answers or nothing can be recorded, the same body goes out again.
 * Resolves to the specification's `data`, also when an earlier try had gone through; rejects with Refused.
 * @param {Action} action @param {typeof import('./scoreboard.js').ask} ask @returns {Promise<Scored>}
 */
export async function submit({ url, actionType, metadata, credentials }, ask) {
  let { token, secret, keyVersion, userId, skew } = await credentials(false);
  const timestamp = new Date(Date.now() + skew).toISOString();
  const body = JSON.stringify({ actionId: crypto.randomUUID(), actionType, timestamp, metadata, userId });
  for (let attempt = 1, renewed = false; ; attempt++) {
    const headers = { 'X-Action-Signature': await signAction(body, secret, keyVersion) };
    const answer = await ask('scores/action', { url, body, token, headers });
    const { status, said, head, wait } = answer;
    if (said?.data && (status === 200 || head('Idempotency-Replayed') === 'true')) return said.data;
    if (!renewed && (status === 401 || said?.code === 'INVALID_SIGNATURE')) {
      renewed = true; // an expired token, a rotated key
      ({ token, secret, keyVersion } = await credentials(true));
    } else if (attempt < TRIES && [0, 200, 502, 503, 504].includes(status)) {
      const pause = wait + 300 + Math.random() * FIRST * 2 ** attempt;
      await new Promise((done) => setTimeout(done, pause));
    } else throw new Refused(answer);
  }
}
