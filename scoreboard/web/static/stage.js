/** The stage, /?stage: the board alone, for a wall or a beamer. Keeps the screen awake and the pointer out of sight. */
import { BoardView } from './board.js';
import { connect } from './scoreboard.js';
import { drawState } from './words.js';

const IDLE_DELAY = 2_000; // ms until pointer and buttons go
/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);

const board = new BoardView($('board'), $('mine').rows[0]);
const live = connect();
const { body } = document;
let changed = body.dataset.updated ?? '';

const drawLine = () => drawState($('state'), live.state, changed);
live.addEventListener('state', drawLine);
live.addEventListener('board', (/** @type {any} */ { detail }) => {
  if (board.draw(detail.leaderboard)) changed = detail.timestamp;
  $('vacancy').hidden = detail.leaderboard.length > 0;
  drawLine();
});
setInterval(drawLine, 250);
$('again').addEventListener('click', live.redial);

/** Keeps the screen on. Browsers release the lock when the page is hidden. */
async function stayAwake() {
  // Browsers refuse it on battery or over http: then the screen may turn off.
  await (document.hidden || navigator.wakeLock?.request('screen').catch(() => {}));
}
document.addEventListener('visibilitychange', stayAwake);
stayAwake();

/** @type {ReturnType<typeof setTimeout>} */ let idle;
/** Shows pointer and buttons for a while. */
function onActivity() {
  clearTimeout(idle);
  body.classList.remove('idle');
  idle = setTimeout(() => body.classList.add('idle'), IDLE_DELAY);
}
for (const event of ['pointermove', 'pointerdown', 'keydown']) addEventListener(event, onActivity);
onActivity();

/** Enters or leaves full screen. */
async function toggleFullscreen() {
  const { fullscreenElement, documentElement } = document;
  await (fullscreenElement ? document.exitFullscreen() : documentElement.requestFullscreen()).catch(() => {});
}
$('fill').addEventListener('click', toggleFullscreen);
addEventListener('keydown', ({ key, ctrlKey, metaKey, altKey }) => {
  if (ctrlKey || metaKey || altKey) return;
  if (key === 'f') toggleFullscreen();
  if (key === 'Escape' && !document.fullscreenElement) location.assign('/');
});
