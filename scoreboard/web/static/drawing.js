/**
 * What a row is drawn with, on the page and in <live-scoreboard>: numbers, faces, movement. Knows no network.
 * @typedef {import('./scoreboard.js').Entry} Entry
 */

const MOVE_DURATION = 350; // ms; long enough to follow, over before the next change is read
const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');
/** Whether changes are drawn without movement. */
const isStill = () => reducedMotion.matches || document.hidden;

export const { format: digits } = new Intl.NumberFormat(); // of the browser's language
export const { format: brief } = new Intl.NumberFormat(undefined, { notation: 'compact' });

/**
 * How many digits and separators a number of so many digits has: languages group them by three, by two, or not.
 * @param {number} size
 */
function formattedSize(size) {
  const text = digits(BigInt('8'.repeat(size)));
  const figures = text.match(/\p{Nd}/gu)?.length ?? size;
  return { figures, separators: [...text].length - figures };
}

/**
 * Sets the sizes that the layout needs for the scores.
 * --em: how wide the longest one may be in a wide bold font, in em. The room is for 4, 7, 10, … digits, so that it
 * changes seldom (web/pages/first_paint.py does the same).
 * --ch: how wide it is at most in digits, a separator as 0.6 of one. All scores have that width, so that all go below
 * their names, or none.
 * @param {HTMLElement} whole @param {{score: number}[]} entries
 */
export function measureScores(whole, entries) {
  const longest = Math.max(4, ...entries.map(({ score }) => String(Math.abs(score)).length));
  const room = formattedSize(Math.ceil((longest - 1) / 3) * 3 + 1);
  const own = formattedSize(longest);
  whole.style.setProperty('--em', (0.7 * room.figures + 0.4 * room.separators).toFixed(1));
  whole.style.setProperty('--ch', (own.figures + 0.6 * own.separators).toFixed(1));
}

/**
 * Makes names that are cut off readable: under the pointer, and by focus, which a tap gives too.
 * @param {Iterable<HTMLElement>} names
 */
export function offerWhole(names) {
  const idle = [...names].filter((name) => !name.matches(':focus'));
  // All of them are measured before any is changed.
  const cut = idle.map((name) => name.scrollWidth > name.clientWidth);
  for (const [place, name] of idle.entries()) {
    if (!cut[place]) for (const attribute of ['tabindex', 'title']) name.removeAttribute(attribute);
    else Object.assign(name, { tabIndex: 0, title: name.textContent });
  }
}

/** One or two letters, as in web/pages/first_paint.py. @param {string} name */
function initials(name) {
  const first = name.replace(/\p{Lu}/gu, ' $&').match(/(?<![\p{L}\p{N}])[\p{L}\p{N}]/gu) ?? ['?'];
  return first.slice(0, 2).join('').toUpperCase();
}

/** Names a picture's content: FNV-1a, as in domain/pictures.py. @param {string} url */
function version(url) {
  let number = 0x811c9dc5;
  for (const letter of url) number = Math.imul(number ^ letter.charCodeAt(0), 0x01000193);
  return (number >>> 0).toString(16).padStart(8, '0');
}

/** Whether two boards show the same. @param {Entry[]} a @param {Entry[]} b */
export const isSame = (a, b) =>
  a.length === b.length &&
  a.every(({ userId, username, score }, place) => {
    const other = b[place];
    return userId === other.userId && username === other.username && score === other.score;
  });

/** What each face shows. @type {WeakMap<Element, string>} */ const painted = new WeakMap();

/**
 * A picture, or initials on a colour of the user's own. The picture comes from the scoreboard's server, never from
 * another one. What is drawn already stays: each new image may be a request.
 * @param {HTMLElement} face @param {{userId: string, username: string, avatarUrl?: string | null}} user
 * @param {string} [server] its origin, '' for the page's own; undefined: no pictures
 */
export function paintFace(face, { userId, username, avatarUrl }, server) {
  const look = [userId, username, avatarUrl ?? '', server].join('\n');
  if (painted.get(face) === look) return;
  painted.set(face, look);
  let hue = 0;
  for (const letter of userId) hue = (hue * 31 + letter.charCodeAt(0)) % 360;
  face.style.setProperty('--hue', String(hue));
  face.textContent = initials(username);
  if (!avatarUrl || server === undefined) return;
  const src = `${server}/avatars/${userId}?v=${version(avatarUrl)}`;
  const image = Object.assign(new Image(), { alt: '', referrerPolicy: 'no-referrer', src });
  image.onerror = () => image.remove();
  face.append(image);
}

/** @type {WeakMap<Element, {shown: number, goal: number}>} */ const counters = new WeakMap();

/** Counts to a number from the shown one. The first is shown at once. @param {Element} element @param {number} goal */
export function count(element, goal) {
  const running = counters.get(element);
  if (running?.goal === goal) return;
  const from = running?.shown ?? goal;
  const counter = { shown: from, goal };
  counters.set(element, counter);
  const begun = performance.now();
  const step = () => {
    if (counters.get(element) !== counter) return; // another goal has been set
    const part = isStill() ? 1 : Math.min(1, (performance.now() - begun) / MOVE_DURATION);
    counter.shown = Math.round(from + (goal - from) * (1 - (1 - part) ** 3));
    element.textContent = digits(counter.shown);
    if (part < 1) requestAnimationFrame(step);
  };
  step();
}

/**
 * Moves rows to where `rearrange` puts them (FLIP). New ones come from below.
 * @param {Element} list @param {() => void} rearrange
 */
export function travel(list, rearrange) {
  if (isStill()) return rearrange();
  const top = () => list.getBoundingClientRect().top;
  const places = () => {
    const rows = /** @type {HTMLElement[]} */ ([...list.children]).filter((row) => row.dataset.user);
    return new Map(rows.map((row) => [row, row.getBoundingClientRect().top - top()]));
  };
  const before = places();
  rearrange();
  for (const row of [...before.keys(), ...list.children])
    for (const each of row.getAnimations()) if (each.id === 'travel') each.cancel();
  const below = list.getBoundingClientRect().height;
  for (const [row, place] of places()) {
    const far = (before.get(row) ?? below) - place;
    if (Math.abs(far) < 1) continue;
    const layer = far > 0 ? 1 : 0; // who rises passes in front
    const frames = { transform: [`translateY(${far}px)`, 'none'], zIndex: [layer, layer] };
    row.animate(frames, { id: 'travel', duration: MOVE_DURATION, easing: 'cubic-bezier(0.2, 0.7, 0.2, 1)' });
  }
}
