/** The live page: joins board, account and buttons, and says everything in words. The rules live on the server. */
import { connect, Refused, submitAction } from './scoreboard.js';
import { Account } from './account.js';
import { BoardView, digits, fill, paintFace } from './board.js';

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
const write = (/** @type {any} */ element, /** @type {string} */ text) => element.textContent === text || (element.textContent = text);

const account = new Account();
const pinned = $('mine').rows[0];
const board = new BoardView($('board'), pinned);
const live = connect({ token: (renew) => account.token(renew) });
/** @type {HTMLButtonElement[]} */ const buttons = [...$('me').querySelectorAll('[data-action]')];
const safe = Boolean(globalThis.crypto?.subtle); // missing on plain http, but for localhost
const { perMinute, updated } = document.body.dataset;

/** @type {{score: number, rank: number | null} | null} */ let mine = null;
let told = 0; // the score that was said last
let changed = updated; // time of the last change
let known = ''; // whose numbers `mine` are
let note = { words: '', until: 0 };

// ---- words --------------------------------------------------------------------------------------------------------

const clock = (time) => new Date(time).toLocaleTimeString();
const seconds = (until) => Math.max(0, Math.ceil((until - Date.now()) / 1000));

function stateWords({ name, transport, retryAt, stale, code }) {
  if (name === 'stopped') return code === 4403 ? 'Not live: this address may not watch' : 'Not live: log in to watch';
  if (stale) return `Stale since ${clock(stale)}`;
  if (name === 'live') return 'Live';
  const words = name === 'waiting' ? `reconnecting in ${seconds(retryAt)} s` : code ? 'reconnecting' : 'connecting';
  return transport ? 'Polling · ' + words : words[0].toUpperCase() + words.slice(1);
}

/** @param {Refused} refused @param {string} [title] of the action; none: log-in or registration */
function refusalWords({ code, layer, status, errors, message }, title) {
  const limits = {
    user: `You have used your ${perMinute} actions this minute.`,
    cooldown: `“${title}” needs a pause.`,
    login: 'Too many attempts to log in.',
    ip: 'Too many requests from your network.',
  };
  const words = {
    RATE_LIMITED: limits[layer],
    UNAUTHORIZED: title ? 'Your session has ended. Please log in again.' : 'User name or password is wrong.',
    INVALID_SIGNATURE: 'The signature was not accepted. Please log out and in again.',
    FORBIDDEN: 'The server does not allow this from here.',
    DUPLICATE_ACTION: 'This action was counted before.',
    SERVICE_UNAVAILABLE: 'The server can’t record anything just now. Please try again soon.',
    INTERNAL: 'The server made a mistake. Please try again.',
  };
  return words[code] || (status && (errors[0]?.message || message)) || 'The server does not answer. Please try again.';
}

/** A line under the buttons, read out once, with a countdown if there is something to wait for. @param {string} words @param {number} [wait] ms */
function say(words, wait = 0) {
  note = { words, until: wait && Date.now() + wait };
  $('said').textContent = words + next(note.until);
  tick();
}
const next = (until) => (seconds(until) ? ` Next in ${seconds(until)} s.` : '');

// ---- what is shown ------------------------------------------------------------------------------------------------

function showMe() {
  const { user, expected } = account;
  const place = user && board.shown.get(user.userId);
  $('enter').hidden = expected;
  $('me').hidden = $('mine').hidden = !expected;
  $('mine').classList.toggle('placed', !user || Boolean(place));
  board.own(user?.userId);
  if (!user) return;
  mine = place || mine;
  write($('name'), user.username);
  paintFace($('me').querySelector('i'), user);
  fill(pinned, { ...user, rank: mine?.rank, score: mine?.score ?? 0 });
  write($('rank'), mine?.rank ? digits(mine.rank) : '–');
  write($('score'), mine ? digits(mine.score) : '–');
}

/** Counts down whatever waits. */
function tick() {
  const { state } = live;
  const [dot, words, more] = $('state').children;
  dot.className = state.stale ? 'waiting' : state.name;
  write(words, stateWords(state));
  write(more, (state.name === 'live' ? 'WebSocket · ' : '') + (changed ? `last change ${clock(changed)}` : ''));

  if (note.until && !seconds(note.until)) note = { words: '', until: 0 };
  const hint = !safe
    ? 'Without https this browser can’t sign actions. Open the page over https, or on localhost.'
    : !mine || mine.rank ? '' : mine.score ? 'Your rank is being counted.' : 'One action puts you on the board.';
  write($('note'), note.words + next(note.until) || hint);

  for (const button of buttons) {
    const until = Number(button.dataset.until ?? 0);
    const wait = seconds(until);
    button.ariaDisabled = wait ? 'true' : null;
    button.style.setProperty('--left', String((until - Date.now()) / Number(button.dataset.whole)));
    write(button.lastElementChild, !wait ? '' : wait < 100 ? `${wait}` : wait < 5940 ? Math.ceil(wait / 60) + 'm' : Math.ceil(wait / 3600) + 'h');
  }
}

live.addEventListener('state', tick);
live.addEventListener('board', (/** @type {any} */ { detail }) => {
  const me = account.user?.userId ?? '';
  const placed = board.shown.has(me);
  board.draw(detail.leaderboard);
  changed = detail.timestamp || changed;
  $('vacancy').hidden = detail.leaderboard.length > 0;
  if (placed && !board.shown.has(me)) live.refresh(); // fallen out: only the server knows how far
  showMe();
  tick();
});
live.addEventListener('personal', (/** @type {any} */ { detail }) => scored(detail));

/** Told twice of an own action, by its answer and by the live event; said once. */
function scored({ score, rank, points = 0 }) {
  mine = { score, rank };
  showMe();
  if (!points || told === score) return;
  told = score;
  say(`+${digits(points)} points.${rank ? ` You are number ${digits(rank)}.` : ''}`);
}

// ---- the actions --------------------------------------------------------------------------------------------------

/** @param {HTMLButtonElement} button @param {number} wait ms */
function cool(button, wait) {
  if (Number(button.dataset.until ?? 0) < Date.now() + wait) Object.assign(button.dataset, { until: Date.now() + wait, whole: wait });
}

/** @param {HTMLButtonElement} button */
async function act(button) {
  if (button.ariaDisabled || button.ariaBusy) return;
  button.ariaBusy = 'true';
  const slow = setTimeout(() => say('No answer yet. Trying again …'), 1500);
  const { action: actionType, metadata, cooldown } = button.dataset;
  try {
    const credentials = (renew) => account.credentials(renew);
    const { newScore, newRank, pointsAwarded } = await submitAction({ actionType, metadata: JSON.parse(metadata), credentials });
    clearTimeout(slow);
    cool(button, Number(cooldown) * 1000);
    scored({ score: newScore, rank: newRank, points: pointsAwarded });
  } catch (error) {
    clearTimeout(slow);
    const { code, layer, wait } = error;
    if (code === 'RATE_LIMITED') for (const each of layer === 'cooldown' ? [button] : buttons) cool(each, wait);
    say(refusalWords(error, button.children[1].textContent), wait);
  }
  button.ariaBusy = null;
}

for (const button of buttons) {
  button.disabled = !safe;
  button.addEventListener('click', () => act(button));
}

// ---- the account --------------------------------------------------------------------------------------------------

const form = $('enter');
let joining = false;

function showForm() {
  $('email-field').hidden = $('email').disabled = !joining;
  $('username').minLength = joining ? 3 : 0;
  $('password').minLength = joining ? 10 : 0;
  $('password').autocomplete = joining ? 'new-password' : 'current-password';
  write($('submit'), joining ? 'Create account' : 'Log in');
  if ($('other')) write($('other'), joining ? 'I have an account' : 'New here? Create an account');
  for (const input of form.querySelectorAll('input')) complain(input);
  write($('form-error'), '');
}

function complain(input, words = '') {
  input.ariaInvalid = words ? 'true' : null;
  write($(input.id + '-error'), words);
}

$('other')?.addEventListener('click', () => {
  joining = !joining;
  showForm();
});
$('reveal').addEventListener('click', () => {
  const hide = $('password').type === 'text';
  $('password').type = hide ? 'password' : 'text';
  write($('reveal'), hide ? 'Show' : 'Hide');
  $('reveal').ariaPressed = String(!hide);
});
form.addEventListener('input', ({ target }) => complain(target));
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const inputs = [...form.querySelectorAll('input:enabled')];
  for (const input of inputs) complain(input, input.validationMessage);
  const wrong = inputs.find((input) => input.ariaInvalid);
  if (wrong) return wrong.focus();
  $('submit').disabled = true;
  write($('form-error'), '');
  try {
    await account.enter(joining ? 'register' : 'login', Object.fromEntries(new FormData(form)));
    form.reset();
    buttons[0]?.focus();
  } catch (error) {
    const fields = error.errors.filter(({ field }) => inputs.includes($(field)));
    for (const { field, message } of fields) complain($(field), message);
    if (fields[0]) $(fields[0].field).focus();
    else write($('form-error'), refusalWords(error) + (error.wait ? ` Try again in ${error.wait / 1000} s.` : ''));
  }
  $('submit').disabled = false;
});
$('leave').addEventListener('click', () => {
  account.leave();
  write($('form-error'), '');
  $('username').focus();
});

account.addEventListener('change', async () => {
  const id = account.user?.userId ?? '';
  const other = known && known !== id;
  if (known !== id) mine = null;
  known = id;
  if (other) {
    say('');
    write($('form-error'), 'Your session has ended. Please log in again.');
    live.redial(); // a socket belongs to one user
  } else if (id) live.identify((await account.token()) ?? '');
  showMe();
});

showForm();
showMe();
setInterval(tick, 250);
