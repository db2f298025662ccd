/** Where I stand: how far the next rank is, and my scores of this session as a line. Knows no network. */
import { digits } from './drawing.js';

/** @typedef {import('./scoreboard.js').Entry} Entry */
const MAX_SCORES = 120; // of a session; with more, every second one of the older half is dropped
const MIN_SPAN = 60_000; // ms that the line spans at least

/** A name of any direction, safe inside a sentence. */
const isolated = (name = '') => `\u2068${name}\u2069`;

/**
 * How far the next rank is, in words. Equal points don't pass: who had them first stays ahead.
 * @param {{score: number, rank: number | null}} mine @param {Entry[]} ladder the best, in order
 */
export function aheadWords({ score, rank }, ladder) {
  if (!rank) return '';
  if (rank === 1) {
    const second = ladder[1];
    if (!second) return 'You lead.';
    if (score > second.score) return `You lead by ${digits(score - second.score)}.`;
    return `You lead: ${isolated(second.username)} was later.`;
  }
  const rival = ladder.find((entry) => entry.rank === rank - 1);
  const goal = rival ?? ladder.at(-1);
  if (!goal) return '';
  const missing = digits(Math.max(1, goal.score - score + 1));
  return rival ? `${missing} to pass ${isolated(rival.username)}` : `${missing} to the top ${ladder.length}`;
}

/** The session's scores as a line. */
export class Sparkline {
  /** @type {{at: number, score: number}[]} */ #scores = [];

  /** @param {Element} svg with one polyline */
  constructor(svg) {
    this.svg = svg;
  }

  /** Starts over, for another user. */
  clear() {
    this.#scores = [];
  }

  /** Points since the session began. */
  get gained() {
    const [first] = this.#scores;
    return first ? (this.#scores.at(-1)?.score ?? 0) - first.score : 0;
  }

  /** Adds the present score. @param {number} score */
  add(score) {
    if (this.#scores.at(-1)?.score === score) return;
    this.#scores.push({ at: Date.now(), score });
    if (this.#scores.length > MAX_SCORES)
      this.#scores = this.#scores.filter((_, place) => !place || place > MAX_SCORES / 2 || place % 2);
  }

  /** Draws in a box of 100 × 20, from the first score to now: level, and a step for each gain. */
  draw() {
    const now = Date.now();
    const [first = { at: now, score: 0 }] = this.#scores;
    const span = Math.max(MIN_SPAN, now - first.at);
    const all = this.#scores.map(({ score }) => score);
    const low = Math.min(...all, first.score);
    const high = Math.max(...all, low + 1);
    const x = (/** @type {number} */ at) => (100 - ((now - at) / span) * 100).toFixed(1);
    const y = (/** @type {number} */ score) => (19 - ((score - low) / (high - low)) * 18).toFixed(1);
    const points = [`0,${y(first.score)}`];
    let level = first.score;
    for (const { at, score } of this.#scores) {
      points.push(`${x(at)},${y(level)}`, `${x(at)},${y(score)}`);
      level = score;
    }
    points.push(`100,${y(level)}`);
    this.svg.firstElementChild?.setAttribute('points', points.join(' '));
  }
}
