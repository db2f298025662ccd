/** The live page: connects board, account and buttons, and puts refusals into words. The server has all rules. */
import { Account } from './account.js';
import { Refused } from './actions.js';
import { BoardView, fill } from './board.js';
import { count, digits, offerWhole, paintFace } from './drawing.js';
import { setUpGuest } from './guest.js';
import { ask, connect, startAction, submitAction } from './scoreboard.js';
import { setUpSessions } from './sessions.js';
import { aheadWords, Sparkline } from './standing.js';
import { drawState, seconds, write } from './words.js';

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);

const RANK_REFRESH_INTERVAL = 15_000; // ms; a rank below the shown top changes without a frame
const LADDER_ROWS = 100; // of one request
const PROBE_INTERVAL = 2_000; // ms between two probes of a server that does not answer, and for its answer
const COOLDOWNS_KEY = 'scoreboard:cooldowns'; // of whoever is logged in here

const account = new Account(ask, '', { lasting: true });
adoptLogIn();
const pinned = $('mine').rows[0];
const board = new BoardView($('board'), pinned);
const sparkline = new Sparkline($('sparkline'));
const live = connect({ token: (renew) => account.token(renew) });
/** @type {HTMLButtonElement[]} */ const buttons = [...$('me').querySelectorAll('[data-action]')];
const { perMinute, updated } = document.body.dataset;

/** @type {{score: number, rank: number | null} | null} */ let mine = null;
// The best as last asked for, while the user is not among the shown.
/** @type {import('./scoreboard.js').Entry[]} */ let ladder = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */ let rankTimer;
let waiting = 0; // own actions that wait for a decision
let announcedScore = 0; // an action's score is announced once
let changed = updated ?? ''; // time of the last change
let shownUser = ''; // the id of the user whose numbers `mine` are
let note = { words: '', until: 0 };
let isProbing = false; // since the server did not answer

// ---- words --------------------------------------------------------------------------------------------------------

const NO_ANSWER = 'The server does not answer. Please try again.';

/** Probes the server until it answers, and removes the words then. */
async function probeServer() {
  if (isProbing) return;
  isProbing = true;
  for (let status = 0; !status; ) {
    await new Promise((done) => setTimeout(done, PROBE_INTERVAL));
    if (document.hidden) continue;
    /** @type {RequestInit} */
    const options = { method: 'HEAD', cache: 'no-store', signal: AbortSignal.timeout(PROBE_INTERVAL) };
    status = (await fetch('/static/favicon.svg', options).catch(() => null))?.status ?? 0;
  }
  isProbing = false;
  if (note.words === NO_ANSWER) announce('');
  for (const error of document.querySelectorAll('.error'))
    if (error.textContent === NO_ANSWER) write(error, '');
}

/** A refusal in words. @param {Refused} refused @param {string} [title] of the action; none: log-in or registration */
function refusalWords({ code, layer, status, errors, message }, title) {
  /** @type {Record<string, string>} */
  const limits = {
    user: `You have used your ${perMinute} actions this minute.`,
    cooldown: `“${title}” needs a pause.`,
    daily: `You have had all of “${title}” for today.`,
    login: 'Too many attempts to log in.',
    ip: 'Too many requests from your network.',
  };
  /** @type {Record<string, string>} */
  const words = {
    RATE_LIMITED: limits[layer],
    UNAUTHORIZED: title ? 'Your session has ended. Please log in again.' : 'User name or password is wrong.',
    INVALID_SIGNATURE: 'The signature was not accepted. Please log out and in again.',
    FORBIDDEN: 'The server does not allow this from here.',
    DUPLICATE_ACTION: 'This action was counted before.',
    SERVICE_UNAVAILABLE: 'The server can’t record anything just now. Please try again soon.',
    INTERNAL: 'The server made a mistake. Please try again.',
  };
  if (!status) probeServer();
  return words[code] || (status && (errors[0]?.message || message)) || NO_ANSWER;
}

/**
 * Shows a line under the buttons, read out once, with a countdown if there is something to wait for.
 * @param {string} words @param {number} [wait] ms
 */
function announce(words, wait = 0) {
  note = { words, until: wait && Date.now() + wait };
  $('said').textContent = words + nextIn(note.until);
  tick();
}
/** The countdown in words. */
const nextIn = (until = 0) => (seconds(until) ? ` Next in ${seconds(until)} s.` : '');

// ---- what is shown ------------------------------------------------------------------------------------------------

/** Shows the user: place, score, form or buttons. */
function showMe() {
  const { user, expected } = account;
  $('jump').hidden = false;
  $('jump').href = expected ? '#me' : '#enter';
  write($('jump'), expected ? 'You' : 'Log in');
  const place = user && board.shown.get(user.userId);
  $('enter').hidden = expected;
  $('me').hidden = $('mine').hidden = !expected;
  $('mine').classList.toggle('placed', !user || Boolean(place));
  board.highlight(user?.userId);
  if (!user) return;
  mine = place || mine;
  write($('name'), user.username);
  $('owner').value = user.username;
  paintFace($('me').querySelector('i'), user, document.body.dataset.avatars);
  fill(pinned, { ...user, rank: mine?.rank, score: mine?.score ?? 0 });
  offerWhole(pinned.querySelectorAll('bdi'));
  write($('rank'), mine?.rank ? digits(mine.rank) : '–');
  if (!mine) return write($('score'), '–');
  count($('score'), mine.score);
  write($('ahead'), aheadWords(mine, place ? [...board.shown.values()] : ladder));
  sparkline.add(mine.score);
  sparkline.draw();
  const { gained } = sparkline;
  write($('gained'), gained ? `${gained > 0 ? '+' : ''}${digits(gained)} this session` : '');
}

/** Asks for the rank of a user who is not shown: only the server knows it, and who is next. */
async function refreshRank() {
  clearTimeout(rankTimer);
  rankTimer = setTimeout(refreshRank, RANK_REFRESH_INTERVAL);
  const { user } = account;
  if (!user || document.hidden || board.shown.has(user.userId)) return;
  const token = await account.token().catch(() => null);
  const { json } = await ask('scores/leaderboard?limit=' + LADDER_ROWS, { token: token ?? '' });
  if (!json?.data?.currentUser || account.user !== user) return;
  ladder = json.data.leaderboard;
  mine = json.data.currentUser;
  showMe();
}

/** So many seconds in at most three characters. */
function shortTime(wait = 0) {
  if (!wait) return '';
  if (wait < 100) return String(wait);
  return wait < 5940 ? Math.ceil(wait / 60) + 'm' : Math.ceil(wait / 3600) + 'h';
}

/** Draws the state and every countdown. */
function tick() {
  drawState($('state'), live.state, changed);
  if (!$('me').hidden) sparkline.draw();

  if (note.until && !seconds(note.until)) note = { words: '', until: 0 };
  let hint = '';
  if (mine && !mine.rank && mine.score) hint = 'Your rank is being counted.';
  else if (waiting) hint = waiting === 1 ? 'One action waits for a decision.' : `${waiting} actions wait for a decision.`;
  else if (mine && !mine.rank && buttons.length) hint = 'One action puts you on the board.';
  write($('note'), note.words + nextIn(note.until) || hint);

  for (const button of buttons) {
    const until = Number(button.dataset.until ?? 0);
    const wait = seconds(until);
    button.ariaDisabled = wait ? 'true' : null;
    button.style.setProperty('--left', String((until - Date.now()) / Number(button.dataset.whole)));
    write(/** @type {Element} */ (button.lastElementChild), shortTime(wait));
  }
}

live.addEventListener('state', tick);
live.addEventListener('board', (/** @type {any} */ { detail }) => {
  const me = account.user?.userId ?? '';
  const placed = board.shown.has(me);
  if (board.draw(detail.leaderboard)) changed = detail.timestamp;
  $('vacancy').hidden = detail.leaderboard.length > 0;
  showMe();
  if (placed && !board.shown.has(me)) refreshRank(); // fallen out: only the server knows how far
  tick();
});
live.addEventListener('personal', (/** @type {any} */ { detail }) => {
  showScore(detail);
  if (waiting) countWaiting(); // it may be an approval
});
live.addEventListener('rejected', (/** @type {any} */ { detail }) => {
  announce(`“${titleOf(detail.actionType)}” was not accepted: ${detail.reason}`);
  countWaiting();
});

/**
 * Shows the user's score. An own action comes twice, by its answer and by the live event; it is announced once.
 * @param {{score: number, rank: number | null, points?: number}} now
 */
function showScore({ score, rank, points = 0 }) {
  if (score === null) return; // no store could tell
  const news = mine?.score !== score || mine.rank !== rank;
  mine = { score, rank };
  showMe();
  if (news) refreshRank();
  if (!points || announcedScore === score) return;
  announcedScore = score;
  announce(`${points > 0 ? '+' : ''}${digits(points)} points.${rank ? ` You are number ${digits(rank)}.` : ''}`);
}

// ---- the actions --------------------------------------------------------------------------------------------------

/** Starts a button's countdown. @param {HTMLButtonElement} button @param {number} wait ms */
function startCooldown(button, wait) {
  if (!(wait > 0) || Number(button.dataset.until ?? 0) >= Date.now() + wait) return;
  Object.assign(button.dataset, { until: Date.now() + wait, whole: wait });
  const resting = buttons.map(({ dataset: { action, until, whole } }) => [action, until, whole]);
  try {
    localStorage.setItem(COOLDOWNS_KEY, JSON.stringify({ user: account.user?.userId, resting }));
  } catch {} // storage is switched off or full: the server knows them all the same
}

/** Restores the user's cooldowns, as far as this browser stored them: a reload changes nothing. */
function restoreCooldowns() {
  /** @type {{user?: string, resting?: [string, string?, string?][]}} */ let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(COOLDOWNS_KEY) ?? '{}');
  } catch {}
  const isOwn = stored.user && stored.user === account.user?.userId;
  const mine = new Map(isOwn ? stored.resting?.map(([action, ...rest]) => [action, rest]) : []);
  for (const { dataset } of buttons) {
    const [until, whole] = mine.get(dataset.action ?? '') ?? [];
    Object.assign(dataset, { until: until ?? 0, whole: whole ?? 1 });
  }
}

/** What the button of an action says. */
const titleOf = (action = '') =>
  buttons.find(({ dataset }) => dataset.action === action)?.children[1].textContent ?? action;

/** Counts the user's actions that wait for a decision, if the page has such actions. */
async function countWaiting() {
  const { user } = account;
  waiting = 0;
  if (user && buttons.some(({ dataset }) => dataset.proof)) {
    const token = await account.token().catch(() => null);
    const { json } = await ask('users/me/held?limit=100', { token: token ?? '' });
    if (account.user !== user) return;
    const held = json?.data?.held ?? [];
    waiting = held.filter((/** @type {{status: string}} */ { status }) => status === 'held').length;
  }
  tick();
}

/** Begins a button's action: pressed again, after the time that it takes at least, the button submits it.
 * @param {HTMLButtonElement} button @param {import('./scoreboard.js').Action} action */
async function begin(button, action) {
  const { startId } = await startAction(action);
  button.dataset.start = startId;
  startCooldown(button, Number(button.dataset.started) * 1000);
  announce(`“${titleOf(action.actionType)}” has begun. Press again when it is done.`);
}

/** Submits a button's action. @param {HTMLButtonElement} button */
async function submit(button) {
  if (button.ariaDisabled || button.ariaBusy) return;
  button.ariaBusy = 'true';
  const slow = setTimeout(() => announce('No answer yet. Trying again …'), 1500);
  const { action: actionType = '', metadata = '{}', cooldown, started, start: startId, proof } = button.dataset;
  try {
    const credentials = (/** @type {boolean} */ renew) => account.credentials(renew);
    const action = { actionType, metadata: JSON.parse(metadata), credentials, startId };
    if (started && !startId) await begin(button, action);
    else {
      // A game would send its replay.
      const replay = new TextEncoder().encode(`${actionType} ${new Date().toISOString()}`);
      /** @type {import('./scoreboard.js').Scored | import('./scoreboard.js').Held} */
      const outcome = await submitAction(proof === 'evidence' ? { ...action, evidence: replay } : action);
      startCooldown(button, Number(cooldown) * 1000);
      if ('status' in outcome) {
        announce(`“${titleOf(actionType)}” waits for a decision.`);
        countWaiting();
      } else showScore({ score: outcome.newScore, rank: outcome.newRank, points: outcome.pointsAwarded });
      delete button.dataset.start;
    }
    clearTimeout(slow);
  } catch (error) {
    clearTimeout(slow);
    // A start that can't be used any more; one that is too young can.
    const [fault] = /** @type {Refused} */ (error).errors ?? [];
    if (fault?.field === 'startId' && !fault.message.endsWith('ago')) delete button.dataset.start;
    const refused = /** @type {Refused} */ (error);
    const { code, layer, wait } = refused;
    const resting = layer === 'cooldown' ? [button] : buttons;
    if (code === 'RATE_LIMITED') for (const each of resting) startCooldown(each, wait);
    announce(refusalWords(refused, button.children[1].textContent ?? ''), wait);
  }
  button.ariaBusy = null;
}

for (const button of buttons) button.addEventListener('click', () => submit(button));

// ---- the account --------------------------------------------------------------------------------------------------

/** Takes over a log-in by an outside issuer, from which the browser has just come back: a cookie names the user. */
function adoptLogIn() {
  const isSecure = location.protocol === 'https:';
  const name = `${isSecure ? '__Host-' : ''}scoreboard_user`; // with the prefix no other host can have set it
  const user = new RegExp(`(?:^|; )${name}=([\\da-f-]{36})`).exec(document.cookie)?.[1];
  if (!user) return;
  document.cookie = `${name}=; Path=/; Max-Age=0${isSecure ? '; Secure' : ''}`;
  account.adopt(user);
}

const form = $('enter');
let isRegistering = false;

/** Shows the form for log-in or registration. */
function showForm() {
  $('email-field').hidden = $('email').disabled = !isRegistering;
  $('username').minLength = isRegistering ? 3 : 0;
  $('password').minLength = isRegistering ? 10 : 0;
  $('password').autocomplete = isRegistering ? 'new-password' : 'current-password';
  write($('submit'), isRegistering ? 'Create account' : 'Log in');
  if ($('other')) write($('other'), isRegistering ? 'I have an account' : 'New here? Create an account');
  for (const input of form.querySelectorAll('input')) showFieldError(input);
  write($('form-error'), '');
}

/** Shows an error below a field; no words remove it. @param {HTMLInputElement} input */
function showFieldError(input, words = '') {
  input.ariaInvalid = words ? 'true' : null;
  write($(input.id + '-error'), words);
}

$('other')?.addEventListener('click', () => {
  isRegistering = !isRegistering;
  showForm();
});
for (const button of document.querySelectorAll('.reveal')) {
  button.addEventListener('click', () => {
    const input = /** @type {HTMLInputElement} */ (button.previousElementSibling);
    const hide = input.type === 'text';
    input.type = hide ? 'password' : 'text';
    write(button, hide ? 'Show' : 'Hide');
    button.ariaPressed = String(!hide);
  });
}

/**
 * Sends a form, and shows each error where it belongs.
 * @param {any} form @param {(fields: any) => Promise<unknown>} send rejects with Refused
 */
function handleForm(form, send) {
  const button = form.querySelector('.primary');
  const failure = form.querySelector('[role=alert]');
  form.addEventListener('input', (/** @type {any} */ { target }) => showFieldError(target));
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (button.disabled) return;
    write(failure, '');
    const inputs = [...form.querySelectorAll('.field input:enabled')];
    for (const input of inputs) showFieldError(input, input.validationMessage);
    const wrong = inputs.find((input) => input.ariaInvalid);
    if (wrong) return wrong.focus();
    button.disabled = true;
    try {
      await send(Object.fromEntries(new FormData(form)));
      form.reset();
    } catch (error) {
      const refused = /** @type {Refused} */ (error);
      const fields = refused.errors.filter(({ field }) => inputs.includes($(field)));
      for (const { field, message } of fields) showFieldError($(field), message);
      if (fields[0]) $(fields[0].field).focus();
      else write(failure, refusalWords(refused) + (refused.wait ? ` Try again in ${refused.wait / 1000} s.` : ''));
    }
    button.disabled = false;
  });
}

handleForm(form, async (fields) => {
  await account.enter(isRegistering ? 'register' : 'login', fields);
  buttons[0]?.focus();
});

$('newPassword').minLength = 10;
handleForm($('change'), async (fields) => {
  const answer = await account.ask('users/me/password', { body: JSON.stringify(fields) });
  if (answer.status !== 204) throw new Refused(answer);
  $('change').parentElement.open = false;
  announce('Your password has been changed.');
});
$('leave').addEventListener('click', () => account.leave());
setUpSessions($('sessions'), account, announce, refusalWords);
setUpGuest(account, handleForm, announce, refusalWords);

account.addEventListener('change', async () => {
  const id = account.user?.userId ?? '';
  const other = shownUser && shownUser !== id;
  if (shownUser !== id) {
    mine = null;
    ladder = [];
    sparkline.clear();
    write($('ahead'), '');
    write($('gained'), '');
  }
  if (shownUser !== id) restoreCooldowns();
  if (shownUser !== id) countWaiting();
  shownUser = id;
  if (other) {
    announce('');
    write($('form-error'), id || account.left ? '' : 'Your session has ended. Please log in again.');
    live.redial(); // a socket belongs to one user
  } else if (id) live.identify((await account.token()) ?? '');
  const isLeaving = !id && document.activeElement === $('leave');
  showMe();
  if (isLeaving) $('username').focus(); // the button is gone
  refreshRank();
});

showForm();
showMe();
setInterval(tick, 250);
$('again').addEventListener('click', live.redial);
$('jump').addEventListener('click', (/** @type {Event} */ event) => {
  if (account.expected) return;
  event.preventDefault(); // going to a fragment would take the focus away again
  form.scrollIntoView();
  $('username').focus({ preventScroll: true });
});
