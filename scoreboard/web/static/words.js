/** The state of a live board in words, for the page, the stage and <live-scoreboard>. */
import { digits } from './drawing.js';

/** @import { State } from './scoreboard.js' */
const TOO_MANY_CONNECTIONS = 1013; // close code

/** What there is too much of, by the layer of the refusal. @type {Record<string, string>} */
const LIMIT_WORDS = { ip: 'too many viewers from your network', user: 'too many boards of this account are open' };

/** In the browser's language; with the date, unless it was today. @param {string | number} time */
export function clock(time) {
  const at = new Date(time);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
}
/** Whole seconds until a time. */
export const seconds = (until = 0) => Math.max(0, Math.ceil((until - Date.now()) / 1000));

/** Why the server refused the connection. @param {State} state */
const refusal = ({ reason, layer }) => {
  const requests = /requests/.test(reason) ? 'too many requests from your network' : '';
  return `Not live: ${requests || LIMIT_WORDS[layer] || reason || 'the server is full'}`;
};

/** The state in words. @param {State} state */
export function stateWords(state) {
  const { name, transport, retryAt, stale, silent, code } = state;
  if (name === 'stopped')
    return code === 4403 ? 'Not live: this site may not show the board' : 'Not live: log in to watch';
  if (name === 'paused') return 'Paused';
  const isRefused = code === TOO_MANY_CONNECTIONS;
  if (name === 'waiting' && isRefused) return `${refusal(state)}. Next try in ${seconds(retryAt)} s`;
  if (name === 'connecting' && isRefused) return `${refusal(state)}. Trying again`;
  if (name === 'waiting') return `Reconnecting in ${seconds(retryAt)} s`;
  if (name === 'connecting') return code ? 'Reconnecting' : 'Connecting';
  if (silent) return `No answer since ${clock(silent)}`;
  if (stale) return `Stale since ${clock(stale)}`;
  return transport === 'polling' ? 'Polling' : 'Live';
}

/**
 * Draws dot, words and details, which flow as one text, and a button that tries again at once.
 * @param {Element} line @param {State} state @param {string} changed time of the last change
 */
export function drawState(line, state, changed) {
  const [text, again] = /** @type {HTMLCollectionOf<HTMLElement>} */ (line.children);
  const [dot, words, more] = /** @type {HTMLCollectionOf<HTMLElement>} */ (text.children);
  const watching = state.viewers && `${digits(state.viewers)} watching`;
  const last = changed && `last change ${clock(changed)}`;
  const details = [state.name === 'live' && state.transport !== 'polling' && state.transport, watching, last];
  dot.className = state.stale || state.silent ? 'waiting' : state.name;
  again.hidden = !state.silent && state.name !== 'waiting';
  write(words, stateWords(state));
  /** @type {HTMLElement} */ (line).dataset.changed = last; // for paper
  write(more, details.filter(Boolean).join(' · '));
}

/** Sets a text if it is another one: no text is read out twice. @param {Element} element @param {string} text */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
