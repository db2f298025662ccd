/** The console's views of users: the search, and one user with the history, bans, notes, corrections and the role. */
import {
  address,
  button,
  choices,
  facts,
  json,
  make,
  nextPage,
  table,
  userLink,
  when,
  words,
} from './console-parts.js';
import { timeline } from './console-timeline.js';
import { digits } from './drawing.js';

/** @import { Console } from './console.js' */

const BANS = /** @type {Record<string, string>} */ ({ ban: 'banned', shadow: 'shadow ban' });
const MAX_REASON = 1000; // characters, as the API
const HISTORY_PAGE = '100'; // entries: as many as the API gives, for the plot

/** @param {any} user */
const standing = (user) => [BANS[user.ban], user.role].filter(Boolean).join(', ') || '–';
/** @param {number | null} score */
const points = (score) => (score === null ? '–' : digits(score));

/** @param {Console} console */
export async function showUsers({ parameters, request }) {
  const { query = '', cursor = '' } = parameters;
  const found = await request(`users?${new URLSearchParams({ query, cursor })}`);
  const input = make('input', {
    id: 'query',
    name: 'query',
    type: 'search',
    value: query,
    maxLength: 254,
    autocomplete: 'off',
    autocapitalize: 'none',
    spellcheck: false,
  });
  const form = make(
    'form',
    { className: 'search', role: 'search' },
    make('label', {
      htmlFor: 'query',
      textContent: 'Beginning of the name, or the whole e-mail address, id or external id',
    }),
    input,
    make('button', { textContent: 'Find' }),
  );
  form.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = address('users', { query: input.value.trim() });
  });
  /** @type {any[]} */ const users = found.users;
  const rows = users.map((user) => [
    userLink(user.userId, user.username),
    standing(user),
    points(user.score),
    when(user.createdAt),
  ]);
  return [
    make('h2', { textContent: 'Users' }),
    form,
    users.length
      ? table('Users by name', ['User', 'Ban, role', 'Score', 'Since'], rows)
      : make('p', { textContent: 'Nobody is found.' }),
    nextPage('More users', 'users', { query }, found.next),
  ];
}

/** @param {Console} console */
export async function showUser(console) {
  const { parameters, request } = console;
  const { id, cursor = '' } = parameters;
  const user = await request(`users/${encodeURIComponent(id)}?${new URLSearchParams({ cursor, limit: HISTORY_PAGE })}`);
  return [
    make('h2', {}, make('bdi', { textContent: user.username })),
    facts([
      ['Score', points(user.score)],
      ['Ban', BANS[user.ban] ?? 'none'],
      ['Role', user.role ?? 'none'],
      ['Open sessions', digits(user.sessions)],
      ['Since', when(user.createdAt)],
      ['Id', make('code', { textContent: user.userId })],
    ]),
    mayDecide(console, user) && decisions(console, user),
    console.may('admin') && roleForm(console, user),
    choices('About this user', [
      ['Flags', address('flags', { user: user.userId, state: 'all' }), false],
      ['Log', address('log', { subject: user.userId }), false],
    ]),
    make('h3', { textContent: 'History' }),
    timeline(user.history),
    history(console, user),
    nextPage('Older', `users/${id}`, {}, user.next),
  ];
}

/**
 * Whether decisions about that user are offered: nobody decides about himself, and only an admin about an admin.
 * @param {Console} console @param {any} user
 */
const mayDecide = ({ may, own }, { userId, role }) => may(role === 'admin' ? 'admin' : 'moderator') && userId !== own;

/** The buttons of decisions about a user. @param {Console} console @param {any} user */
function decisions({ decide, request }, user) {
  const { userId, username } = user;
  /** @param {boolean} shadow */
  const ban = (shadow) => () =>
    decide({
      title: shadow ? 'Shadow ban' : 'Ban',
      about: shadow
        ? `${username} leaves every board, and is the only one who still sees himself on it.`
        : `${username} leaves every board, and can submit no more actions.`,
      confirm: shadow ? 'Shadow ban' : 'Ban',
      done: shadow ? `${username} has a shadow ban.` : `${username} is banned.`,
      limit: MAX_REASON,
      mayShow: !shadow,
      act: (reason, showReason) =>
        request(`users/${userId}/ban`, 'POST', { reason, shadow, ...(shadow ? {} : { showReason }) }),
    });
  const lift = () =>
    decide({
      title: 'Lift the ban',
      about: `${username} comes back on every board, with all points.`,
      confirm: 'Lift the ban',
      done: `The ban of ${username} is lifted.`,
      limit: MAX_REASON,
      act: (reason) => request(`users/${userId}/ban`, 'DELETE', { reason }),
    });
  const note = () =>
    decide({
      title: 'Note',
      about: `About ${username}, for others with a role. The user never reads it.`,
      confirm: 'Add the note',
      done: 'The note is added.',
      limit: 2 * MAX_REASON,
      act: (text) => request(`users/${userId}/notes`, 'POST', { note: text }),
    });
  return make(
    'p',
    { className: 'choices' },
    ...(user.ban ? [button('Lift the ban', lift)] : [button('Ban', ban(false)), button('Shadow ban', ban(true))]),
    button('Add a note', note),
  );
}

/** @param {Console} console @param {any} user */
function roleForm({ decide, request }, { userId, username, role }) {
  const select = make(
    'select',
    { id: 'role' },
    ...['none', 'viewer', 'moderator', 'admin'].map((name) =>
      make('option', { value: name, textContent: name, selected: name === (role ?? 'none') }),
    ),
  );
  const change = () =>
    decide({
      title: 'Change the role',
      about: `${username}: ${role ?? 'none'} → ${select.value}. It holds from the next request on.`,
      confirm: 'Change the role',
      done: `The role of ${username} is ${select.value}.`,
      limit: 0,
      act: () => request(`users/${userId}/role`, 'PUT', { role: select.value }),
    });
  return make(
    'p',
    { className: 'choices' },
    make('label', { htmlFor: 'role', textContent: 'Role' }),
    select,
    button('Change the role', change),
  );
}

/** What was, as a table: for those who can't see the plot too. @param {Console} console @param {any} user */
function history(console, user) {
  const isOffered = mayDecide(console, user);
  /** @type {any[]} */ const entries = user.history;
  if (!entries.length) return make('p', { textContent: 'Nothing yet.' });
  const rows = entries.map((entry) => [
    when(entry.at),
    words(entry.kind),
    describe(entry),
    isOffered && correction(console, user, entry),
  ]);
  return table('History, the newest first', ['Time', 'What', 'Details', 'Correction'], rows);
}

/** What an entry says, for each kind. @type {Record<string, (details: any) => string[]>} */
const DESCRIPTIONS = {
  action: ({ actionType, points: worth, newScore, isReversed }) => [
    `${actionType}: ${worth} points → ${digits(newScore)}`,
    isReversed && 'reversed',
  ],
  ban: ({ shadow, reason, by, liftedAt, liftedBy }) => [
    `${shadow ? 'Shadow ban' : 'Ban'}: ${reason}`,
    by && `by ${by}`,
    liftedAt && `lifted by ${liftedBy}`,
  ],
  reversal: ({ actionId, reason, by, undoneAt, undoneBy }) => [
    `${actionId}: ${reason}`,
    by && `by ${by}`,
    undoneAt && `undone by ${undoneBy}`,
  ],
  flag: ({ rule, state, reason, by }) => [`${words(rule)}: ${state}`, by && `by ${by}`, reason],
  held: ({ actionType, points: worth, status, reason, by }) => [
    `${actionType}: ${worth} points, ${status}`,
    by && `by ${by}`,
    reason,
  ],
  note: ({ note, by }) => [note, by && `by ${by}`],
};

/** @param {any} entry */
function describe({ kind, details }) {
  const data = details.metadata ?? details.evidence;
  const text = (DESCRIPTIONS[kind]?.(details) ?? []).filter(Boolean).join('; ');
  return make('div', {}, text, data && Object.keys(data).length > 0 && json(data));
}

/**
 * An action id as the API takes it in a path, whatever it is: in base64url after `~`. A cheat may have chosen `..`.
 * @param {string} actionId
 */
function actionSegment(actionId) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(actionId));
  return `~${btoa(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')}`;
}

/**
 * The button that takes an action's points, or gives them back.
 * @param {Console} console @param {any} user @param {any} entry
 */
function correction({ decide, request }, { userId, username }, { kind, details }) {
  if (kind !== 'action') return null;
  const { actionId, actionType, points: worth, isReversed } = details;
  const path = `users/${userId}/actions/${actionSegment(actionId)}/reverse`;
  const about = `${actionType} ${actionId} of ${username}, ${worth} points.`;
  const undo = () =>
    decide({
      title: 'Undo the reversal',
      about: `${about} It counts again.`,
      confirm: 'Undo the reversal',
      done: 'The action counts again.',
      limit: MAX_REASON,
      act: (reason) => request(path, 'DELETE', { reason }),
    });
  const reverse = () =>
    decide({
      title: 'Reverse the action',
      about: `${about} They are taken off every board.`,
      confirm: 'Reverse',
      done: 'The action is reversed.',
      limit: MAX_REASON,
      act: (reason) => request(path, 'POST', { reason }),
    });
  return isReversed
    ? button('Undo', undo, { className: 'quiet', ariaLabel: `Undo the reversal of ${actionId}` })
    : button('Reverse', reverse, { className: 'quiet', ariaLabel: `Reverse ${actionId}` });
}
