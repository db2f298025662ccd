/** The stage, /?stage: the board alone, for a wall or a beamer. Keeps the screen awake and the pointer out of sight. */
import { BoardView } from './board.js';
import { connect } from './scoreboard.js';
import { drawState } from './words.js';

const IDLE = 2_000; // ms until pointer and buttons go
/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);

const board = new BoardView($('board'), $('mine').rows[0]);
const live = connect();
const { body } = document;
let changed = body.dataset.updated ?? '';

const state = () => drawState($('state'), live.state, changed);
live.addEventListener('state', state);
live.addEventListener('board', (/** @type {any} */ { detail }) => {
  if (board.draw(detail.leaderboard)) changed = detail.timestamp;
  $('vacancy').hidden = detail.leaderboard.length > 0;
  state();
});
setInterval(state, 250);
$('again').addEventListener('click', live.redial);

/** Browsers take the lock away with the page out of sight. */
async function stayAwake() {
  await (document.hidden || navigator.wakeLock?.request('screen').catch(() => {})); // not on battery, or not over http: it is the wall's own affair
}
document.addEventListener('visibilitychange', stayAwake);
stayAwake();

/** @type {ReturnType<typeof setTimeout>} */ let idle;
function touched() {
  clearTimeout(idle);
  body.classList.remove('idle');
  idle = setTimeout(() => body.classList.add('idle'), IDLE);
}
for (const event of ['pointermove', 'pointerdown', 'keydown']) addEventListener(event, touched);
touched();

const fill = () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()).catch(() => {});
$('fill').addEventListener('click', fill);
addEventListener('keydown', ({ key, ctrlKey, metaKey, altKey }) => {
  if (ctrlKey || metaKey || altKey) return;
  if (key === 'f') fill();
  if (key === 'Escape' && !document.fullscreenElement) location.assign('/');
});
