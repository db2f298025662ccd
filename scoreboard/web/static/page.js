/** The live page: joins board, account and buttons, and says everything in words. The rules live on the server. */
import { Account } from './account.js';
import { Refused } from './actions.js';
import { BoardView, fill } from './board.js';
import { count, digits, offerWhole, paintFace } from './drawing.js';
import { ask, connect, submitAction } from './scoreboard.js';
import { aheadWords, Sparkline } from './standing.js';
import { drawState, seconds, write } from './words.js';

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);

const LOOK = 15_000; // ms; below the shown top others pass me without a frame
const LADDER = 100; // rows of one look
const PROBE = 2_000; // ms between two questions whether the server answers again, and for the answer
const COOLDOWNS = 'scoreboard:cooldowns'; // of whoever is logged in here

const account = new Account('', { lasting: true });
const pinned = $('mine').rows[0];
const board = new BoardView($('board'), pinned);
const sparkline = new Sparkline($('sparkline'));
const live = connect({ token: (renew) => account.token(renew) });
/** @type {HTMLButtonElement[]} */ const buttons = [...$('me').querySelectorAll('[data-action]')];
const { perMinute, updated } = document.body.dataset;

/** @type {{score: number, rank: number | null} | null} */ let mine = null;
/** @type {import('./scoreboard.js').Entry[]} */ let ladder = []; // the best as last looked up, while I am not among the shown
/** @type {ReturnType<typeof setTimeout> | undefined} */ let looking;
let told = 0; // the score that was said last
let changed = updated ?? ''; // time of the last change
let known = ''; // whose numbers `mine` are
let note = { words: '', until: 0 };
let isAway = false; // the server did not answer; asked until it does

// ---- words --------------------------------------------------------------------------------------------------------

const AWAY = 'The server does not answer. Please try again.';

/** Takes that back when it answers. */
async function untilItAnswers() {
  if (isAway) return;
  isAway = true;
  for (let status = 0; !status; ) {
    await new Promise((done) => setTimeout(done, PROBE));
    const probe = document.hidden ? null : fetch('/static/favicon.svg', { method: 'HEAD', cache: 'no-store', signal: AbortSignal.timeout(PROBE) });
    status = (await probe?.catch(() => null))?.status ?? 0;
  }
  isAway = false;
  if (note.words === AWAY) say('');
  for (const error of document.querySelectorAll('.error')) if (error.textContent === AWAY) write(error, '');
}

/** @param {Refused} refused @param {string} [title] of the action; none: log-in or registration */
function refusalWords({ code, layer, status, errors, message }, title) {
  /** @type {Record<string, string>} */
  const limits = {
    user: `You have used your ${perMinute} actions this minute.`,
    cooldown: `“${title}” needs a pause.`,
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
  if (!status) untilItAnswers();
  return words[code] || (status && (errors[0]?.message || message)) || AWAY;
}

/** A line under the buttons, read out once, with a countdown if there is something to wait for. @param {string} words @param {number} [wait] ms */
function say(words, wait = 0) {
  note = { words, until: wait && Date.now() + wait };
  $('said').textContent = words + next(note.until);
  tick();
}
const next = (until = 0) => (seconds(until) ? ` Next in ${seconds(until)} s.` : '');

// ---- what is shown ------------------------------------------------------------------------------------------------

function showMe() {
  const { user, expected } = account;
  $('jump').hidden = false;
  $('jump').href = expected ? '#me' : '#enter';
  write($('jump'), expected ? 'You' : 'Log in');
  const place = user && board.shown.get(user.userId);
  $('enter').hidden = expected;
  $('me').hidden = $('mine').hidden = !expected;
  $('mine').classList.toggle('placed', !user || Boolean(place));
  board.own(user?.userId);
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
  write($('gained'), sparkline.gained ? `${sparkline.gained > 0 ? '+' : ''}${digits(sparkline.gained)} this session` : '');
}

/** Below the shown top only the server knows who is next, and who has passed me. */
async function look() {
  clearTimeout(looking);
  looking = setTimeout(look, LOOK);
  const { user } = account;
  if (!user || document.hidden || board.shown.has(user.userId)) return;
  const token = await account.token().catch(() => null);
  const { said } = await ask('scores/leaderboard?limit=' + LADDER, { token: token ?? '' });
  if (!said?.data?.currentUser || account.user !== user) return;
  ladder = said.data.leaderboard;
  mine = said.data.currentUser;
  showMe();
}

/** Counts down whatever waits. */
function tick() {
  drawState($('state'), live.state, changed);
  if (!$('me').hidden) sparkline.draw();

  if (note.until && !seconds(note.until)) note = { words: '', until: 0 };
  const hint = !mine || mine.rank ? '' : mine.score ? 'Your rank is being counted.' : buttons.length ? 'One action puts you on the board.' : '';
  write($('note'), note.words + next(note.until) || hint);

  for (const button of buttons) {
    const until = Number(button.dataset.until ?? 0);
    const wait = seconds(until);
    button.ariaDisabled = wait ? 'true' : null;
    button.style.setProperty('--left', String((until - Date.now()) / Number(button.dataset.whole)));
    write(/** @type {Element} */ (button.lastElementChild), !wait ? '' : wait < 100 ? `${wait}` : wait < 5940 ? Math.ceil(wait / 60) + 'm' : Math.ceil(wait / 3600) + 'h');
  }
}

live.addEventListener('state', tick);
live.addEventListener('board', (/** @type {any} */ { detail }) => {
  const me = account.user?.userId ?? '';
  const placed = board.shown.has(me);
  if (board.draw(detail.leaderboard)) changed = detail.timestamp;
  $('vacancy').hidden = detail.leaderboard.length > 0;
  showMe();
  if (placed && !board.shown.has(me)) look(); // fallen out: only the server knows how far
  tick();
});
live.addEventListener('personal', (/** @type {any} */ { detail }) => scored(detail));

/** Told twice of an own action, by its answer and by the live event; said once. @param {{score: number, rank: number | null, points?: number}} now */
function scored({ score, rank, points = 0 }) {
  if (score === null) return; // no store could tell
  const news = mine?.score !== score || mine.rank !== rank;
  mine = { score, rank };
  showMe();
  if (news) look();
  if (!points || told === score) return;
  told = score;
  say(`+${digits(points)} points.${rank ? ` You are number ${digits(rank)}.` : ''}`);
}

// ---- the actions --------------------------------------------------------------------------------------------------

/** @param {HTMLButtonElement} button @param {number} wait ms */
function cool(button, wait) {
  if (!(wait > 0) || Number(button.dataset.until ?? 0) >= Date.now() + wait) return;
  Object.assign(button.dataset, { until: Date.now() + wait, whole: wait });
  const resting = buttons.map(({ dataset: { action, until, whole } }) => [action, until, whole]);
  try {
    localStorage.setItem(COOLDOWNS, JSON.stringify({ user: account.user?.userId, resting }));
  } catch {} // storage is switched off or full: the server knows them all the same
}

/** The cooldowns of whoever is logged in now, as far as this browser knows them: a reload changes nothing. */
function recall() {
  /** @type {{user?: string, resting?: [string, string?, string?][]}} */ let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(COOLDOWNS) ?? '{}');
  } catch {}
  const mine = new Map(kept.user && kept.user === account.user?.userId ? kept.resting?.map(([action, ...rest]) => [action, rest]) : []);
  for (const { dataset } of buttons) {
    const [until, whole] = mine.get(dataset.action ?? '') ?? [];
    Object.assign(dataset, { until: until ?? 0, whole: whole ?? 1 });
  }
}

/** @param {HTMLButtonElement} button */
async function act(button) {
  if (button.ariaDisabled || button.ariaBusy) return;
  button.ariaBusy = 'true';
  const slow = setTimeout(() => say('No answer yet. Trying again …'), 1500);
  const { action: actionType = '', metadata = '{}', cooldown } = button.dataset;
  try {
    const credentials = (/** @type {boolean} */ renew) => account.credentials(renew);
    const { newScore, newRank, pointsAwarded } = await submitAction({ actionType, metadata: JSON.parse(metadata), credentials });
    clearTimeout(slow);
    cool(button, Number(cooldown) * 1000);
    scored({ score: newScore, rank: newRank, points: pointsAwarded });
  } catch (error) {
    clearTimeout(slow);
    const refused = /** @type {Refused} */ (error);
    const { code, layer, wait } = refused;
    if (code === 'RATE_LIMITED') for (const each of layer === 'cooldown' ? [button] : buttons) cool(each, wait);
    say(refusalWords(refused, button.children[1].textContent ?? ''), wait);
  }
  button.ariaBusy = null;
}

for (const button of buttons) button.addEventListener('click', () => act(button));

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

/** @param {HTMLInputElement} input */
function complain(input, words = '') {
  input.ariaInvalid = words ? 'true' : null;
  write($(input.id + '-error'), words);
}

$('other')?.addEventListener('click', () => {
  joining = !joining;
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

/** A form that says what is wrong where it is. @param {any} form @param {(fields: any) => Promise<unknown>} send rejects with Refused */
function handle(form, send) {
  const button = form.querySelector('.primary');
  const failure = form.querySelector('[role=alert]');
  form.addEventListener('input', (/** @type {any} */ { target }) => complain(target));
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (button.disabled) return;
    write(failure, '');
    const inputs = [...form.querySelectorAll('.field input:enabled')];
    for (const input of inputs) complain(input, input.validationMessage);
    const wrong = inputs.find((input) => input.ariaInvalid);
    if (wrong) return wrong.focus();
    button.disabled = true;
    try {
      await send(Object.fromEntries(new FormData(form)));
      form.reset();
    } catch (error) {
      const refused = /** @type {Refused} */ (error);
      const fields = refused.errors.filter(({ field }) => inputs.includes($(field)));
      for (const { field, message } of fields) complain($(field), message);
      if (fields[0]) $(fields[0].field).focus();
      else write(failure, refusalWords(refused) + (refused.wait ? ` Try again in ${refused.wait / 1000} s.` : ''));
    }
    button.disabled = false;
  });
}

handle(form, async (fields) => {
  await account.enter(joining ? 'register' : 'login', fields);
  buttons[0]?.focus();
});

$('newPassword').minLength = 10;
handle($('change'), async (fields) => {
  for (let renewed = false; ; renewed = true) {
    const answer = await ask('users/me/password', { body: JSON.stringify(fields), token: (await account.token(renewed)) ?? '' });
    if (answer.status === 204) break;
    if (answer.status !== 401 || renewed) throw new Refused(answer);
  }
  $('change').parentElement.open = false;
  say('Your password has been changed.');
});
$('leave').addEventListener('click', () => account.leave());

account.addEventListener('change', async () => {
  const id = account.user?.userId ?? '';
  const other = known && known !== id;
  if (known !== id) {
    mine = null;
    ladder = [];
    sparkline.clear();
    write($('ahead'), '');
    write($('gained'), '');
  }
  if (known !== id) recall();
  known = id;
  if (other) {
    say('');
    write($('form-error'), id || account.left ? '' : 'Your session has ended. Please log in again.');
    live.redial(); // a socket belongs to one user
  } else if (id) live.identify((await account.token()) ?? '');
  const isLeaving = !id && document.activeElement === $('leave');
  showMe();
  if (isLeaving) $('username').focus(); // the button is gone
  look();
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
