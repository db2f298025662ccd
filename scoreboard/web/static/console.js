/**
 * The console: who is logged in and with which role, which view the address names, and the dialog in which decisions
 * are confirmed. The server decides at each request what somebody may do; what is hidden here is only not offered.
 */
import { Account } from './account.js';
import { Refused } from './actions.js';
import { showFlags } from './console-flags.js';
import { showHeld } from './console-held.js';
import { showKeys, showLog } from './console-log.js';
import { address, make } from './console-parts.js';
import { showUser, showUsers } from './console-users.js';
import { ask } from './scoreboard.js';
import { write } from './words.js';

/**
 * What a view is given. `request` resolves to the answer's data, and rejects with Refused.
 * @typedef {{
 *   view: any, role: string, own: string, may: (role: string) => boolean, parameters: Record<string, string>,
 *   request: (path: string, method?: string, fields?: object) => Promise<any>, token: () => Promise<string>,
 *   decide: (decision: Decision) => void, announce: (words: string) => void, redraw: () => Promise<void>,
 * }} Console
 * @typedef {{
 *   title: string, about: string, confirm: string, done: string, help?: string, limit?: number, mayShow?: boolean,
 *   act: (reason: string, isShown: boolean) => Promise<unknown>,
 * }} Decision  limit: characters of the reason; 0 for a decision without one
 */

const ROLES = ['viewer', 'moderator', 'admin']; // each may do what those before it may
/**
 * Path → title, the role that it needs, and what shows it.
 * @type {Record<string, [string, string, (console: Console) => Promise<any[]>]>}
 */
const VIEWS = {
  users: ['Users', 'viewer', showUsers],
  flags: ['Flags', 'viewer', showFlags],
  held: ['Held actions', 'viewer', showHeld],
  keys: ['Server keys', 'admin', showKeys],
  log: ['Log', 'viewer', showLog],
};

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);
const account = new Account(ask, '', { lasting: true });
const title = document.title;
/** @type {{userId: string, username: string, role: string} | null} */ let me = null;
let isStarting = false; // it is being found out who is here
let isRefused = false; // the server says that there is no role; else it may only not answer
let shown = 0; // counts views; what comes for an earlier one is dropped

/** @param {string} words */
const announce = (words) => write($('notice'), words);
/** @param {unknown} error */
const wordsOf = (error) => (error instanceof Error ? error.message : String(error));
/** @param {string} role */
const may = (role) => Boolean(me && ROLES.indexOf(me.role) >= ROLES.indexOf(role));

/** @param {string} path @param {string} [method] @param {object} [fields] */
async function request(path, method = 'GET', fields) {
  const answer = await account.ask(`admin/${path}`, { method, body: fields ? JSON.stringify(fields) : '' });
  if (answer.status >= 200 && answer.status < 300) return answer.json?.data ?? null;
  const refused = new Refused(answer);
  if (refused.status === 403 && path !== 'me') await readRole(); // it may have been taken a moment ago
  if (refused.errors.length)
    refused.message = refused.errors.map(({ field, message }) => `${field} ${message}.`).join(' ');
  throw refused;
}

// ---- who is here ----------------------------------------------------------------------------------------------------

/** Reads the own role, and shows what it allows. */
async function readRole() {
  const before = me?.role;
  try {
    me = await request('me');
  } catch (error) {
    const { status } = /** @type {Refused} */ (error);
    if (status !== 403 && status !== 404 && status !== 401) throw error;
    isRefused = status !== 401;
    me = null;
  }
  drawFrame();
  if (!before || me?.role === before) return;
  announce(me ? `Your role is ${me.role} now.` : '');
  draw(); // without what is not allowed any more
}

/** The frame round the view: form, refusal, or navigation. */
function drawFrame() {
  const isIn = account.expected;
  $('enter').hidden = isIn;
  $('refused').hidden = !isIn || Boolean(me) || isStarting;
  $('no-role').hidden = !isRefused;
  $('view').hidden = $('nav').hidden = !me;
  $('who').hidden = !isIn;
  if (!me) $('view').replaceChildren();
  if (!me && $('decide').open) $('decide').close();
  const name = me?.username ?? account.user?.username ?? '';
  write($('who').firstElementChild, me ? `${name}, ${me.role}` : name);
  const { path } = place();
  const links = Object.entries(VIEWS).filter(([, [, role]]) => may(role));
  $('nav').replaceChildren(
    ...links.map(([key, [text]]) =>
      make('a', { href: address(key), textContent: text, ariaCurrent: path[0] === key ? 'page' : null }),
    ),
  );
  if (!me) document.title = title;
}

/** Finds out who is here, and shows the view. */
async function start() {
  isStarting = true;
  isRefused = false;
  announce('');
  try {
    if (account.expected && (await account.token())) await readRole();
    else me = null;
  } catch (error) {
    me = null;
    if (/** @type {Refused} */ (error).status !== 401) announce(wordsOf(error));
  }
  isStarting = false;
  drawFrame();
  await draw();
}

// ---- views ----------------------------------------------------------------------------------------------------------

/** What the address names. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  /** @type {Record<string, string>} */ const parameters = Object.fromEntries(new URLSearchParams(query));
  return { path: (path || 'users').split('/'), parameters };
}

/** Shows the view that the address names. */
async function draw({ moves = false } = {}) {
  if (!me) return;
  const mine = ++shown;
  const { path, parameters } = place();
  const [name, role, show] = VIEWS[Object.hasOwn(VIEWS, path[0]) ? path[0] : 'users'];
  const isUser = path[0] === 'users' && path[1];
  $('view').ariaBusy = 'true';
  /** @type {any[]} */ let content;
  try {
    if (!may(role)) throw new Error(`This needs the role ${role}.`);
    const given = {
      view: $('view'),
      role: me.role,
      own: me.userId,
      may,
      parameters: { ...parameters, user: parameters.user ?? '', id: path[1] ?? '' },
      request,
      token: async () => (await account.token()) ?? '',
      decide,
      announce,
      redraw: () => draw(),
    };
    content = await (isUser ? showUser : show)(given);
  } catch (error) {
    content = [
      make('h2', { textContent: name }),
      make('p', { className: 'error', role: 'alert', textContent: wordsOf(error) }),
    ];
  }
  if (mine !== shown || !me) return;
  $('view').replaceChildren(...content.filter(Boolean));
  $('view').ariaBusy = null;
  document.title = `${$('view').querySelector('h2')?.textContent ?? name} · ${title}`;
  drawFrame();
  if (moves) focusHeading();
}

/** Where a screen reader goes on after the view has changed. */
function focusHeading() {
  const heading = $('view').querySelector('h2');
  if (heading) heading.tabIndex = -1;
  heading?.focus();
}

// ---- decisions ------------------------------------------------------------------------------------------------------

/** @type {Decision | null} */ let asked = null;

/** Opens the dialog about a decision. @param {Decision} decision */
function decide(decision) {
  asked = decision;
  const { limit = 500 } = decision;
  $('decide-title').textContent = decision.title;
  $('decide-about').textContent = decision.about;
  $('confirm').textContent = decision.confirm;
  $('reason-field').hidden = !limit;
  $('reason').required = Boolean(limit);
  $('reason').maxLength = limit || 1;
  $('reason').value = '';
  $('reason').ariaInvalid = null;
  $('reason-help').textContent = decision.help ?? '';
  $('shown-field').hidden = !decision.mayShow;
  $('shown').checked = false;
  write($('decide-error'), '');
  $('decide').showModal();
  (limit ? $('reason') : $('cancel')).focus();
}

$('cancel').addEventListener('click', () => $('confirm').disabled || $('decide').close());
$('decide').addEventListener('cancel', (/** @type {Event} */ event) => {
  if ($('confirm').disabled) event.preventDefault(); // the decision is on its way: its answer ends the dialog
});
$('decide').addEventListener('close', () => document.activeElement === document.body && focusHeading());
$('decide')
  .querySelector('form')
  .addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!asked || $('confirm').disabled) return;
    const reason = $('reason').value.trim();
    if ($('reason').required && !reason) {
      $('reason').ariaInvalid = 'true';
      write($('decide-error'), 'Please give a reason.');
      return $('reason').focus();
    }
    const decision = asked;
    $('confirm').disabled = true;
    try {
      await decision.act(reason, $('shown').checked);
      await close(decision.done);
    } catch (error) {
      const { status } = /** @type {Refused} */ (error);
      if (!me) $('decide').close();
      else if (status === 409 || status === 404)
        await close(wordsOf(error)); // somebody was faster: read what there is now
      else write($('decide-error'), wordsOf(error));
    }
    $('confirm').disabled = false;
  });

/** Ends the dialog, with words, and reads the view again. @param {string} words */
async function close(words) {
  $('decide').close();
  announce(words);
  await draw();
  focusHeading(); // the button that was pressed is gone
}

// ---- log-in ---------------------------------------------------------------------------------------------------------

$('enter').addEventListener('submit', async (/** @type {Event} */ event) => {
  event.preventDefault();
  const confirm = $('enter').querySelector('.primary');
  if (confirm.disabled) return;
  const empty = [$('username'), $('password')].find((input) => !input.value);
  write($('form-error'), empty ? 'Please give your name and your password.' : '');
  if (empty) return empty.focus();
  confirm.disabled = true;
  try {
    await account.enter('login', Object.fromEntries(new FormData($('enter'))));
    $('enter').reset();
  } catch (error) {
    const { wait } = /** @type {Refused} */ (error);
    write($('form-error'), wordsOf(error) + (wait ? ` Try again in ${wait / 1000} s.` : ''));
  }
  confirm.disabled = false;
});
$('leave').addEventListener('click', () => account.leave());
$('retry').addEventListener('click', start);

let known = '';
account.addEventListener('change', async () => {
  const user = account.user?.userId ?? '';
  if (user === known) return; // a renewal
  const ended = known && !user && !account.left;
  known = user;
  if (isStarting) return; // the session of before, which is renewed
  me = null;
  announce('');
  await start();
  write($('form-error'), ended ? 'Your session has ended. Please log in again.' : '');
  if (user) focusHeading();
  else $('username').focus();
});
addEventListener('hashchange', () => {
  announce('');
  draw({ moves: true });
});
document.querySelector('.skip')?.addEventListener('click', (event) => {
  event.preventDefault(); // the address names a view
  $('content').focus();
});
start();
