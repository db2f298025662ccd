/** What the state of a live board is in words, for the page, the stage and <live-scoreboard>: never a silent failure. */
import { digits } from './drawing.js';

/** @import { State } from './scoreboard.js' */
const TOO_MANY = 1013; // close code

/** Whose number is too great, by the layer of the refusal. @type {Record<string, string>} */
const FULL = { ip: 'too many viewers from your network', user: 'too many boards of this account are open' };

/** In the browser's language; with the date, unless it was today. @param {string | number} time */
export function clock(time) {
  const at = new Date(time);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
}
export const seconds = (until = 0) => Math.max(0, Math.ceil((until - Date.now()) / 1000));

/** Why the server would not have one more. @param {State} state */
const refusal = ({ reason, layer }) => `Not live: ${/requests/.test(reason) ? 'too many requests from your network' : FULL[layer] || reason || 'the server is full'}`;

/** @param {State} state */
export function stateWords(state) {
  const { name, transport, retryAt, stale, silent, code } = state;
  if (name === 'stopped') return code === 4403 ? 'Not live: this site may not show the board' : 'Not live: log in to watch';
  if (name === 'paused') return 'Paused';
  if (name === 'waiting' && code === TOO_MANY) return `${refusal(state)}. Next try in ${seconds(retryAt)} s`;
  if (name === 'connecting' && code === TOO_MANY) return `${refusal(state)}. Trying again`;
  if (name === 'waiting') return `Reconnecting in ${seconds(retryAt)} s`;
  if (name === 'connecting') return code ? 'Reconnecting' : 'Connecting';
  if (silent) return `No answer since ${clock(silent)}`;
  if (stale) return `Stale since ${clock(stale)}`;
  return transport === 'polling' ? 'Polling' : 'Live';
}

/** Dot, words and details, which flow as one text, and a button for whoever does not want to wait. @param {Element} line @param {State} state @param {string} changed time of the last change */
export function drawState(line, state, changed) {
  const [said, again] = /** @type {HTMLCollectionOf<HTMLElement>} */ (line.children);
  const [dot, words, more] = /** @type {HTMLCollectionOf<HTMLElement>} */ (said.children);
  const watching = state.viewers && `${digits(state.viewers)} watching`;
  const last = changed && `last change ${clock(changed)}`;
  const details = [state.name === 'live' && state.transport !== 'polling' && state.transport, watching, last];
  dot.className = state.stale || state.silent ? 'waiting' : state.name;
  again.hidden = !state.silent && state.name !== 'waiting';
  write(words, stateWords(state));
  /** @type {HTMLElement} */ (line).dataset.changed = last; // for paper
  write(more, details.filter(Boolean).join(' · '));
}

/** Leaves alone what says it already: no mutation, nothing read out twice. @param {Element} element @param {string} text */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
