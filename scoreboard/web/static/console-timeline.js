/** A user's score over time as a plot, with marks for what was reversed or held. The table below it has the same. */
import { make } from './console-parts.js';
import { digits } from './drawing.js';

const [MIN_WIDTH, MAX_WIDTH, HEIGHT, EDGE] = [300, 1400, 180, 12]; // of the drawing, in its own units
const MARK = 6; // half the size of a mark

/** @param {string} name @param {Record<string, string | number>} attributes */
function draw(name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

/** Where each entry stands: its time and the score then. The oldest first. @param {any[]} history the newest first */
export function pointsOf(history) {
  const isPlotted = (/** @type {any} */ { kind, details }) =>
    kind === 'action' || (kind === 'held' && details.status !== 'approved'); // an approved one is an action
  const entries = history.filter(isPlotted).reverse();
  let score = 0;
  const first = entries.find(({ kind }) => kind === 'action');
  if (first) score = first.details.newScore - first.details.points;
  return entries.map(({ kind, at, details }) => {
    if (kind === 'action') score = details.newScore;
    const mark = kind === 'held' ? 'held' : details.isReversed ? 'reversed' : 'action';
    return { at: Date.parse(at), score, mark };
  });
}

/** @param {any[]} history @returns {any} nothing where there is nothing to draw */
export function timeline(history) {
  const points = pointsOf(history);
  if (!points.length) return null;
  const width = Math.min(Math.max(innerWidth - 100, MIN_WIDTH), MAX_WIDTH); // so that marks have one size everywhere
  const ats = points.map(({ at }) => at);
  const scores = points.map(({ score }) => score);
  const [from, to, least, most] = [Math.min(...ats), Math.max(...ats), Math.min(...scores), Math.max(...scores)];
  /** @param {number} at */
  const x = (at) => EDGE + ((at - from) / (to - from || 1)) * (width - 2 * EDGE);
  /** @param {number} score */
  const y = (score) => HEIGHT - EDGE - ((score - least) / (most - least || 1)) * (HEIGHT - 2 * EDGE);
  const svg = draw('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img' });
  /** @param {string} mark */
  const count = (mark) => points.filter((point) => point.mark === mark).length;
  const marks = `${points.length} actions, ${count('reversed')} reversed, ${count('held')} held`;
  const summary = `${marks}. Score from ${digits(least)} to ${digits(most)}.`;
  svg.setAttribute('aria-label', summary);
  const steps = points.flatMap(({ at, score }, place) => [
    ...(place ? [`${x(at)},${y(points[place - 1].score)}`] : []),
    `${x(at)},${y(score)}`,
  ]);
  svg.append(draw('polyline', { points: steps.join(' ') }));
  for (const { at, score, mark } of points) {
    const [left, top] = [x(at), y(score)];
    const across = `M${left - MARK} ${top - MARK}l${2 * MARK} ${2 * MARK}m0 ${-2 * MARK}l${-2 * MARK} ${2 * MARK}`;
    if (mark === 'reversed') svg.append(draw('path', { d: across, class: mark }));
    else if (mark === 'held')
      svg.append(draw('rect', { x: left - MARK, y: top - MARK, width: 2 * MARK, height: 2 * MARK, class: mark }));
    else svg.append(draw('circle', { cx: left, cy: top, r: 2.5, class: mark }));
  }
  const days = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
  const caption = make(
    'figcaption',
    {},
    make('span', { textContent: days.formatRange(from, to) }),
    make('span', { textContent: `${digits(least)} – ${digits(most)} points` }),
    make('span', { textContent: '✕ reversed   □ held or refused' }),
  );
  return make('figure', {}, svg, caption);
}
