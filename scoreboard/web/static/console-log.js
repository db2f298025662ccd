/** The console's views of the audit log and of server keys: read only. */
import { address, json, make, nextPage, table, userLink, when, words } from './console-parts.js';

/** @import { Console } from './console.js' */

/** @param {Console} console */
export async function showLog({ view, parameters, request }) {
  const { kind = '', subject = '', cursor = '' } = parameters;
  const found = await request(`log?${new URLSearchParams({ kind, subject, cursor })}`);
  /** @type {any[]} */ const events = found.events;
  const rows = events.map((event) => [
    when(event.at),
    words(event.kind),
    event.actorName ? userLink(event.actor, event.actorName) : event.actor,
    event.subject && userLink(event.subject, event.subjectName),
    Object.keys(event.details).length > 0 && json(event.details),
  ]);
  return [
    make('h2', { textContent: 'Log' }),
    filter(view.dataset.kinds.split(' '), kind, subject),
    events.length
      ? table('Events, the newest first', ['Time', 'What', 'Who', 'About', 'Details'], rows)
      : make('p', { textContent: 'No events.' }),
    nextPage('Older', 'log', { kind, subject }, found.next),
  ];
}

/** @param {string[]} kinds @param {string} kind @param {string} subject */
function filter(kinds, kind, subject) {
  const option = (/** @type {string} */ name) =>
    make('option', { value: name, textContent: words(name), selected: name === kind });
  const select = make(
    'select',
    { id: 'kind' },
    make('option', { value: '', textContent: 'everything' }),
    ...kinds.map(option),
  );
  const input = make('input', {
    id: 'subject',
    value: subject,
    maxLength: 36,
    autocomplete: 'off',
    autocapitalize: 'none',
    spellcheck: false,
  });
  const form = make(
    'form',
    { className: 'search' },
    make('label', { htmlFor: 'kind', textContent: 'What' }),
    select,
    make('label', { htmlFor: 'subject', textContent: 'Id of the user it is about' }),
    input,
    make('button', { textContent: 'Show' }),
  );
  form.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = address('log', { kind: select.value, subject: input.value.trim() });
  });
  return form;
}

/** @param {Console} console */
export async function showKeys({ parameters, request }) {
  const { cursor = '' } = parameters;
  const found = await request(`server-keys?${new URLSearchParams({ cursor })}`);
  /** @type {any[]} */ const keys = found.keys;
  const rows = keys.map((key) => [
    key.name,
    make('code', { textContent: key.keyId }),
    key.scopes.join(', '),
    when(key.createdAt),
    when(key.lastUsedAt),
    make(
      'span',
      {},
      key.revokedAt ? 'revoked ' : key.expiresAt ? 'expires ' : 'valid',
      (key.revokedAt || key.expiresAt) && when(key.revokedAt ?? key.expiresAt),
      key.overlaps && !key.revokedAt && ', rotated',
    ),
  ]);
  return [
    make('h2', { textContent: 'Server keys' }),
    make(
      'p',
      {},
      'Without their secrets. They are made, rotated and revoked by ',
      make('code', { textContent: 'scoreboard server-keys' }),
      '.',
    ),
    keys.length
      ? table('Server keys, the oldest first', ['Name', 'Id', 'Scopes', 'Made', 'Last used', 'State'], rows)
      : make('p', { textContent: 'There are none.' }),
    nextPage('More keys', 'keys', {}, found.next),
  ];
}
