/**
 * Checks with WebCrypto that an action is in the transparency log (RFC 6962, C2SP checkpoints), and that the log has
 * only grown since this browser saw it last. The server's answers are data here: every claim is computed again.
 * `#user=…&action=…` fills the form in; what follows # is not sent to the server.
 */
const API = '/api/v1/audit';
const SEEN = 'scoreboard:log'; // localStorage: the checkpoint that was seen last, and the key that signed it
const ED25519 = 1; // of a signed note

/** @typedef {{ name: string, id: Uint8Array, public: Uint8Array, text: string }} Key */
/** @typedef {{ name: string, size: number, root: Uint8Array, note: string }} Checkpoint */
/** @typedef {{ holds: boolean | null, what: string }} Step  null: it could not be checked */
/** @typedef {{ record: string, salt: string, index: number, size: number, path: string[], checkpoint: string }} Proof */

/** A reason to stop that is a sentence for the user. */
class Refused extends Error {}

// ---- bytes ---------------------------------------------------------------------------------------------------------

const encoder = new TextEncoder();
/** @param {string} text */
const utf8 = (text) => encoder.encode(text);

/** @param {string} text @returns {Uint8Array} */
function fromHex(text) {
  if (!/^([0-9a-f]{2})*$/.test(text)) throw new Refused('the proof has a hash that is not hexadecimal');
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** @param {string} text @returns {Uint8Array | null} */
function fromBase64(text) {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    return null;
  }
}

/** @param {Uint8Array} bytes */
const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
/** @param {Uint8Array} one @param {Uint8Array} other */
const isSame = (one, other) => toHex(one) === toHex(other);

/** SHA-256 of the parts, one after the other. @param {(Uint8Array | number[])[]} parts */
async function sha256(...parts) {
  const bytes = new Uint8Array(parts.flatMap((part) => [...part]));
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
}

/** @param {Uint8Array} left @param {Uint8Array} right */
const hashNode = (left, right) => sha256([1], left, right);

// ---- the tree: RFC 9162 sections 2.1.3.2 and 2.1.4.2 ------------------------------------------------------------------

/** The root that a path leads to; null when it does not fit. @param {Uint8Array} leaf @param {Proof} proof */
async function rootOf(leaf, { index, size, path }) {
  if (!Number.isSafeInteger(size) || !Number.isSafeInteger(index) || index < 0 || index >= size) return null;
  let [at, last, root] = [index, size - 1, leaf];
  for (const step of path.map(fromHex)) {
    if (!last) return null;
    if (at % 2 || at === last) {
      root = await hashNode(step, root);
      while (at % 2 === 0 && at) [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
    } else root = await hashNode(root, step);
    [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
  }
  return last ? null : root;
}

/**
 * Whether the old tree is the beginning of the new one.
 * @param {Checkpoint} old @param {Checkpoint} now @param {string[]} path
 */
async function isBeginning(old, now, path) {
  if (old.size === now.size) return isSame(old.root, now.root);
  if (!old.size) return true;
  const steps = path.map(fromHex);
  if (Number.isInteger(Math.log2(old.size))) steps.unshift(old.root);
  if (!steps.length) return false;
  let [at, last] = [old.size - 1, now.size - 1];
  while (at % 2) [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
  let [before, after] = [steps[0], steps[0]];
  for (const step of steps.slice(1)) {
    if (!last) return false;
    if (at % 2 || at === last) {
      [before, after] = [await hashNode(step, before), await hashNode(step, after)];
      while (at % 2 === 0 && at) [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
    } else after = await hashNode(after, step);
    [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
  }
  return !last && isSame(before, old.root) && isSame(after, now.root);
}

// ---- keys and checkpoints: C2SP signed-note, tlog-checkpoint ----------------------------------------------------------

/** @param {string} text @returns {Promise<Key>} */
async function readKey(text) {
  const [, name, id, encoded] = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim()) ?? [];
  const bytes = encoded ? fromBase64(encoded) : null;
  const hash = bytes && (await sha256(utf8(`${name}\n`), bytes)).slice(0, 4);
  if (!bytes || !hash || bytes.length !== 33 || bytes[0] !== ED25519 || toHex(hash) !== id)
    throw new Refused('The public key is not one of a log. It looks like name+01234567+letters.');
  return { name, id: hash, public: bytes.slice(1), text: text.trim() };
}

/** @param {string} note @returns {Checkpoint | null} */
function readCheckpoint(note) {
  const [name, size, root] = note.split('\n');
  const bytes = fromBase64(root ?? '');
  if (!/^(0|[1-9][0-9]{0,14})$/.test(size ?? '') || bytes?.length !== 32) return null;
  return { name, size: Number(size), root: bytes, note };
}

/** Whether the key signed the note; null where the browser can't tell. @param {string} note @param {Key} key */
async function isSigned(note, key) {
  const end = note.lastIndexOf('\n\n');
  if (end < 0 || note.split('\n')[0] !== key.name) return false;
  /** @type {CryptoKey} */ let imported;
  try {
    imported = await crypto.subtle.importKey('raw', new Uint8Array(key.public), { name: 'Ed25519' }, false, ['verify']);
  } catch {
    return null; // an older browser
  }
  for (const line of note.slice(end + 2).split('\n')) {
    const [mark, name, encoded] = line.split(' ');
    const bytes = encoded ? fromBase64(encoded) : null;
    if (mark !== '—' || name !== key.name || !bytes || !isSame(bytes.slice(0, 4), key.id)) continue;
    const text = new Uint8Array(utf8(note.slice(0, end + 1)));
    if (await crypto.subtle.verify('Ed25519', imported, new Uint8Array(bytes.slice(4)), text)) return true;
  }
  return false;
}

// ---- what the server says ------------------------------------------------------------------------------------------

/** @param {string} path @param {Record<string, string>} query */
async function ask(path, query = {}) {
  const answer = await fetch(`${API}/${path}?${new URLSearchParams(query)}`.replace(/\?$/, ''), { cache: 'no-store' });
  const text = await answer.text();
  if (answer.ok) return text;
  /** @type {{ detail?: string }} */ let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {}
  throw new Refused(problem.detail ?? `The server answers ${answer.status}.`);
}

/** @param {string} text @returns {Proof} */
function readProof(text) {
  const { data } = JSON.parse(text);
  const texts = [data?.record, data?.salt, data?.checkpoint, ...(Array.isArray(data?.path) ? data.path : [null])];
  if (texts.some((part) => typeof part !== 'string') || data.path.length > 128)
    throw new Refused('The answer is not a proof.');
  return data;
}

/** The key and the checkpoint that this browser saw last. @returns {{ key: string, checkpoint: Checkpoint } | null} */
function lastSeen() {
  try {
    const { key, note } = JSON.parse(localStorage.getItem(SEEN) ?? '{}');
    const checkpoint = readCheckpoint(String(note));
    return checkpoint && typeof key === 'string' ? { key, checkpoint } : null;
  } catch {
    return null;
  }
}

/** @param {Key} key @param {string} note */
function remember(key, note) {
  try {
    localStorage.setItem(SEEN, JSON.stringify({ key: key.text, note }));
  } catch {} // refused: the next visit has nothing to compare with
}

// ---- the check -----------------------------------------------------------------------------------------------------

/**
 * Every step of the check, in its order.
 * @param {string} user @param {string} action @param {Proof} proof @param {Key} key @param {boolean} isGiven
 * @returns {AsyncGenerator<Step>}
 */
async function* steps(user, action, proof, key, isGiven) {
  /** @type {Record<string, unknown>} */ const record = JSON.parse(proof.record);
  const hash = toHex(await sha256(fromHex(proof.salt), utf8(`action:${action}`)));
  const isIt = record.kind === 'action' && record.user === user.toLowerCase() && record.action === hash;
  yield {
    holds: isIt,
    what: isIt
      ? `The record is about this action: ${record.points} points, for a total of ${record.newScore}.`
      : 'The record is about another action or another user.',
  };
  const signed = await isSigned(proof.checkpoint, key);
  const origin = isGiven ? 'the key that you gave' : 'the key that this server gives';
  yield {
    holds: signed,
    what:
      signed === null
        ? 'This browser has no Ed25519: it can not check the signature of the log.'
        : `The checkpoint is ${signed ? '' : 'not '}signed with ${origin}: ${key.text}`,
  };
  const checkpoint = readCheckpoint(proof.checkpoint);
  const root = await rootOf(await sha256([0], utf8(proof.record)), proof);
  const isIn = !!checkpoint && !!root && checkpoint.size === proof.size && isSame(root, checkpoint.root);
  yield {
    holds: isIn,
    what: isIn
      ? `The record is number ${proof.index} of ${proof.size}: ${proof.path.length} hashes lead from it to the signed root.`
      : 'The hashes do not lead from the record to the root that was signed.',
  };
  if (!checkpoint || !signed || !isIn) return;
  const seen = lastSeen();
  const step = seen && (await growth(seen, key, checkpoint));
  if (step) yield step;
  if (!step || step.holds) remember(key, proof.checkpoint);
}

/**
 * Whether the log only grew since this browser saw it.
 * @param {{ key: string, checkpoint: Checkpoint }} last @param {Key} key @param {Checkpoint} now @returns {Promise<Step>}
 */
async function growth({ key: lastKey, checkpoint: seen }, key, now) {
  if (lastKey !== key.text)
    return { holds: null, what: `This browser has seen this log with another key. Ask who knows: ${lastKey}` };
  if (now.size < seen.size) {
    const what = `The log went back: this browser has seen ${seen.size} records, now there are ${now.size}.`;
    return { holds: false, what };
  }
  const sizes = { from: String(seen.size), to: String(now.size) };
  const path = seen.size && seen.size < now.size ? JSON.parse(await ask('consistency', sizes)).data.path : [];
  const holds = await isBeginning(seen, now, path);
  const before = `the ${seen.size} records that this browser has seen before`;
  return { holds, what: holds ? `The log still has ${before}.` : `The log was rewritten: it does not have ${before}.` };
}

// ---- the page ------------------------------------------------------------------------------------------------------

const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const field = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (document.getElementById(id));
const MARKS = { true: 'Holds', false: 'Fails', null: 'Not checked' };

/** @param {string} text @param {boolean} holds */
function say(text, holds) {
  element('verdict').textContent = text;
  element('verdict').className = holds ? '' : 'fails';
}

/** @param {Step} step */
function show({ holds, what }) {
  const line = document.createElement('li');
  const mark = document.createElement('b');
  line.className = holds === false ? 'fails' : '';
  mark.textContent = MARKS[/** @type {'true' | 'false' | 'null'} */ (String(holds))];
  line.append(mark, ` ${what}`);
  element('steps').append(line);
}

async function check() {
  element('steps').replaceChildren();
  element('cost').textContent = '';
  element('details').hidden = true;
  say('Asking the server …', true);
  if (!globalThis.crypto?.subtle) throw new Refused('Browsers calculate hashes on https pages alone. Open it by https.');
  const [user, given, action] = [field('user').value.trim(), field('key').value.trim(), field('action').value];
  const text = await ask('proof', { userId: user, actionId: action });
  const key = await readKey(given || (await ask('key')));
  const began = performance.now();
  const proof = readProof(text);
  element('proof').textContent = JSON.stringify(proof, null, 1);
  element('details').hidden = false;
  /** @type {Step[]} */ const found = [];
  for await (const step of steps(user, action, proof, key, !!given)) {
    found.push(step);
    show(step);
  }
  const took = performance.now() - began;
  element('cost').textContent = `The proof has ${utf8(text).length} bytes. Checking it took ${took.toFixed(1)} ms.`;
  const fails = found.some(({ holds }) => holds === false);
  const isWhole = found.every(({ holds }) => holds);
  if (fails) say('This proof is not valid.', false);
  else say(isWhole ? 'This action is in the log.' : 'The proof is valid, as far as this browser can tell.', true);
}

element('check').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await check();
  } catch (error) {
    if (error instanceof Refused) say(error.message, false);
    else say(error instanceof SyntaxError ? 'The answer is not a proof.' : 'The server does not answer.', false);
  }
});

const prefilled = new URLSearchParams(location.hash.slice(1));
for (const id of ['user', 'action', 'key']) field(id).value = prefilled.get(id) ?? field(id).value;
