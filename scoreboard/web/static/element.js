/**
 * <live-scoreboard src limit theme>: the board on anybody's page. Loaded by scoreboard.js with the first one.
 *
 * src: the server (default: where the script comes from); limit: rows, 1 to 10 (5); theme: light or dark (default: the
 * page's color-scheme). Font and radius are the page's own; --scoreboard-accent, -paper, -ink, -mute and -line are the
 * colours.
 * @typedef {import('./scoreboard.js').Entry} Entry
 */
import { count, digits, isSame, measureScores, offerWhole, paintFace, travel } from './drawing.js';
import { drawState } from './words.js';

const MAX_ROWS = 10; // what a live board shows
const DEFAULT_ROWS = 5;
const STYLES = `
:host {
  display: block;
  container-type: inline-size;
  min-width: 0;
  border-radius: 0.875rem;
  color: var(--scoreboard-ink, light-dark(#17150f, #f5f1e6));
  font-variant-numeric: tabular-nums;
  --mute: var(--scoreboard-mute, light-dark(#666052, #a49d8d));
  --line: var(--scoreboard-line, light-dark(#17150f1f, #f5f1e621));
  --accent: var(--scoreboard-accent, #ffb51f);
}
:host([hidden]) { display: none; }
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
* { box-sizing: border-box; margin: 0; padding: 0; }
section {
  --pad: 1rem; --em: 3.2; --ch: 0; border-radius: inherit; padding: 0.5rem var(--pad);
  background: var(--scoreboard-paper, light-dark(#fffefa, #1c1a15)); line-height: 1.4;
}
ol { list-style: none; }
li {
  --face: 2.4em; position: relative; display: flex; flex-wrap: wrap; place-content: center start;
  align-items: center; column-gap: 0.6em; min-height: 3em; padding-block: 0.4em;
  border-block-end: 1px solid var(--line);
}
li::after {
  content: ""; position: absolute; inset: auto auto -1px 0; width: calc(100% * var(--share, 0));
  border-block-end: 2px solid; opacity: 0.4;
}
b {
  flex: none; display: grid; place-items: center; min-width: 2.1em; height: 2.1em; border: 2px solid #0000;
  border-radius: 50%; font-size: 0.85em; font-weight: 500; color: var(--mute);
}
li:nth-child(-n + 3) b { border-color: currentcolor; font-weight: 700; color: inherit; }
li:nth-child(2) b { background: currentcolor; }
li:nth-child(2) b span { color: light-dark(#fffefa, #1c1a15); }
li:first-child { min-height: 4em; font-size: 1.15em; font-weight: 700; }
li:first-child b { background: var(--accent); border-color: var(--accent); color: #1d1400; }
i {
  position: relative; flex: none; display: grid; place-items: center; width: var(--face); height: var(--face);
  border-radius: 50%; overflow: hidden; background: oklch(48% 0.08 var(--hue, 90)); color: #fff;
  font-size: 0.7em; font-style: normal; font-weight: 600; letter-spacing: 0;
}
img { position: absolute; width: 100%; height: 100%; object-fit: cover; }
bdi { flex: 1 1 5.5em; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
bdi[tabindex] { cursor: help; }
bdi:focus { white-space: normal; overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid; outline-offset: 2px; }
data {
  flex: none; min-width: min(100%, var(--ch) * 1ch); margin-inline-start: auto; text-align: end;
  font-weight: 700; font-size: min(1em, (100cqi - 2 * var(--pad)) / var(--em)); white-space: nowrap;
}
.empty i { visibility: hidden; }
section:has(.stopped) .waiting { display: none; } /* nothing will come */
.waiting li bdi { height: 0.7em; border-radius: 1em; background: var(--line); }
p {
  display: flex; align-items: center; justify-content: space-between; gap: 0.5em; min-height: 3em;
  font-size: 0.8em; color: var(--mute);
}
p > span {
  min-width: 0; overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  text-wrap: balance;
}
p b {
  display: inline-block; min-width: 0; width: 0.65em; height: 0.65em; margin-inline-end: 0.5em; padding: 0;
  border: 2px solid; border-radius: 50%; font-size: 1em;
}
button {
  flex: none; font: inherit; color: inherit; min-height: 2.75rem; margin-block: -1rem; padding: 0 0.5em;
  border: 0; background: none; text-decoration: underline; text-underline-offset: 0.2em; cursor: pointer;
}
[hidden] { display: none; }
p .live { color: var(--accent); background: var(--accent); }
p .stopped { color: light-dark(#a3200c, #ff9d8c); background: currentcolor; }
@container (width < 20rem) {
  section { --pad: 0.75rem; padding-block: 0.25rem; }
  i, p span span + span { display: none; }
}
@container (width >= 32rem) {
  section { --pad: 1.5rem; padding-block: 0.75rem; }
  li { column-gap: 1em; min-height: 3.25em; }
  li:first-child { min-height: 5em; font-size: 1.5em; letter-spacing: -0.02em; }
}
`;

/** @type {CSSStyleSheet | undefined} */ let sheet;

/** Makes an element, without markup in strings. @param {string} name @param {Node[]} parts */
function make(name, ...parts) {
  const element = document.createElement(name);
  element.append(...parts);
  return element;
}

/** An empty row. */
const makeRow = () => make('li', make('b', make('span')), make('i'), make('bdi'), make('data'));

/**
 * Draws a live board into an element, until the returned function is called.
 * @param {HTMLElement} host @param {typeof import('./scoreboard.js').connect} connect
 */
export function mount(host, connect) {
  const root = host.shadowRoot ?? host.attachShadow({ mode: 'open' });
  if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(STYLES); // not a <style>: the page's CSP may forbid those
  root.adoptedStyleSheets = [sheet];
  const list = make('ol');
  const again = make('button', new Text('Try now'));
  const dot = make('b');
  const line = make('p', make('span', dot, make('span'), new Text(' '), make('span')), again);
  again.addEventListener('click', () => live?.redial());
  const section = make('section', list, line);
  root.replaceChildren(section);
  list.role = 'list'; // Safari forgets it with list-style: none
  dot.ariaHidden = 'true';

  /** @type {Map<string, HTMLElement>} */ let rows = new Map();
  /** @type {ReturnType<typeof connect> | undefined} */ let live;
  /** @type {Entry[]} */ let entries = [];
  let changed = '';

  /** The server's origin. */
  const server = () => new URL(host.getAttribute('src') || import.meta.url, location.href).origin;
  /** How many rows are shown. */
  const limit = () => {
    const asked = Math.floor(Number(host.getAttribute('limit') ?? DEFAULT_ROWS)) || DEFAULT_ROWS;
    return Math.min(MAX_ROWS, Math.max(1, asked));
  };
  /** Draws the state. */
  const drawLine = () => live && drawState(line, live.state, changed);

  const offerNames = () => offerWhole(list.querySelectorAll('bdi'));

  /** Draws the rows. */
  function draw() {
    const size = limit();
    const before = rows;
    rows = new Map();
    for (const entry of entries.slice(0, size)) {
      const row = before.get(entry.userId) ?? makeRow();
      const [rank, face, name, score] = /** @type {HTMLCollectionOf<HTMLElement>} */ (row.children);
      row.dataset.user = entry.userId;
      row.style.setProperty('--share', String(entry.score / (entries[0].score || 1)));
      rank.children[0].textContent = digits(entry.rank);
      count(score, entry.score);
      paintFace(face, entry, server());
      face.ariaHidden = 'true';
      name.textContent = entry.username;
      rows.set(entry.userId, row);
    }
    const all = [...rows.values()];
    while (all.length < size) {
      const row = makeRow();
      row.className = 'empty';
      row.ariaHidden = 'true';
      all.push(row);
    }
    list.ariaLabel = `Top ${size}`;
    all.forEach((row, place) => row === list.children[place] || list.insertBefore(row, list.children[place]));
    while (list.children.length > size) list.lastChild?.remove();
    measureScores(section, entries);
    offerNames();
  }

  /** Connects to the server that `src` names. */
  function connectLive() {
    live?.close();
    live = connect({ url: server() });
    live.addEventListener('state', drawLine);
    live.addEventListener('board', (/** @type {any} */ { detail }) => {
      const first = !entries.length;
      if (!isSame(entries, detail.leaderboard)) changed = detail.timestamp;
      entries = detail.leaderboard;
      list.classList.remove('waiting');
      if (first) draw();
      else travel(list, draw);
      drawLine();
    });
  }

  list.classList.add('waiting');
  draw();
  const resized = new ResizeObserver(offerNames);
  resized.observe(list);
  connectLive();
  drawLine();
  const clock = setInterval(drawLine, 1000);
  const watch = new MutationObserver((changes) => {
    if (changes.some(({ attributeName }) => attributeName === 'src')) connectLive();
    else draw();
  });
  watch.observe(host, { attributes: true, attributeFilter: ['src', 'limit'] });
  return () => {
    watch.disconnect();
    resized.disconnect();
    clearInterval(clock);
    live?.close();
  };
}
