/**
 * Draws the board into the table that the server sent. A row belongs to a player, not to a place, so that images, focus
 * and movement follow people. Knows no network.
 * @typedef {import('./scoreboard.js').Entry} Entry
 */
import { brief, count, digits, isSame, measureScores, offerWhole, paintFace, travel } from './drawing.js';

const MARK_DURATION = 6_000; // ms that a change stays marked

/** Draws an entry. @param {HTMLTableRowElement} row @param {Omit<Entry, 'rank'> & {rank?: number | null}} entry */
export function fill(row, entry) {
  const [rank, player, , score] = row.cells;
  const [face, name] = /** @type {HTMLCollectionOf<HTMLElement>} */ (player.children[0].children);
  rank.children[0].textContent = entry.rank ? digits(entry.rank) : '–';
  count(score, entry.score);
  if (name.textContent !== entry.username) name.textContent = entry.username;
  paintFace(face, entry, document.body.dataset.avatars);
}

/** Marks what changed. @param {HTMLTableRowElement} row @param {Entry | undefined} before @param {Entry} now */
function mark(row, before, now) {
  const up = before ? before.rank - now.rank : 0;
  const gain = before ? now.score - before.score : 0;
  if (before && !up && !gain) return;
  const span = document.createElement('span');
  if (!before) span.textContent = 'new';
  else if (up) span.textContent = (up > 0 ? '▲' : '▼') + Math.abs(up);
  else span.textContent = (gain > 0 ? '+' : '') + (Math.abs(gain) < 1000 ? digits : brief)(gain);
  if (!before || up > 0) span.className = 'rise';
  row.cells[2].replaceChildren(span);
  setTimeout(() => span.remove(), MARK_DURATION);
}

/** The board's table. */
export class BoardView {
  /** @type {Map<string, Entry>} */ shown = new Map();
  /** @type {Map<string, HTMLTableRowElement>} */ #rows = new Map();

  /** @param {HTMLTableSectionElement} body @param {HTMLTableRowElement} spare an empty row to copy */
  constructor(body, spare) {
    // Some browsers take a table that is laid out as a grid for no table at all.
    const groups = { table: 'table', 'thead, tbody, tfoot': 'rowgroup', tr: 'row' };
    const roles = { ...groups, td: 'cell', th: 'rowheader', 'thead th': 'columnheader' };
    for (const [part, role] of Object.entries(roles))
      for (const each of document.querySelectorAll(part)) each.role = role;
    this.body = body;
    this.spare = /** @type {HTMLTableRowElement} */ (spare.cloneNode(true));
    this.size = body.rows.length;
    for (const row of body.rows) {
      const userId = row.dataset.user;
      if (!userId) continue;
      const [face, name] = /** @type {HTMLCollectionOf<HTMLElement>} */ (row.cells[1].children[0].children);
      const score = Number(row.cells[3].textContent?.replace(/\D/g, ''));
      const entry = { rank: this.shown.size + 1, userId, username: name.textContent ?? '', score };
      this.#rows.set(userId, row);
      this.shown.set(userId, entry);
      count(row.cells[3], score);
      if (!row.querySelector('img')) paintFace(face, entry);
    }
    this.#measure();
    new ResizeObserver(() => this.#offerWhole()).observe(body);
  }

  /**
   * Draws a board; returns whether anything changed. It compares with what is on the screen, not with
   * `changedPositions`: a viewer may have missed frames.
   * @param {Entry[]} entries
   */
  draw(entries) {
    const before = [...this.shown.values()];
    if (this.body.classList.contains('waiting')) this.#draw(entries, false);
    else travel(this.body, () => this.#draw(entries, true));
    this.body.classList.remove('waiting');
    return !isSame(before, [...this.shown.values()]);
  }

  /** Fills the rows and puts them in order. @param {Entry[]} entries @param {boolean} marked */
  #draw(entries, marked) {
    const before = this.shown;
    const rows = new Map();
    this.shown = new Map();
    for (const entry of entries.slice(0, this.size)) {
      const id = entry.userId;
      const row = this.#rows.get(id) ?? this.#copy();
      row.dataset.user = id;
      fill(row, entry);
      if (marked) mark(row, before.get(id), entry);
      rows.set(id, row);
      this.shown.set(id, entry);
    }
    this.#rows = rows;
    const all = [...rows.values()];
    while (all.length < this.size) {
      const row = this.#copy('vacant');
      row.ariaHidden = 'true';
      row.cells[0].children[0].textContent = String(all.push(row));
    }
    // A row that stays is not touched: moving a node drops its focus.
    all.forEach((row, place) => row === this.body.rows[place] || this.body.insertBefore(row, this.body.rows[place]));
    while (this.body.rows.length > this.size) this.body.deleteRow(-1);
    this.#measure();
    this.#offerWhole();
  }

  /** Highlights the user's own row. @param {string} [me] */
  highlight(me) {
    for (const [id, row] of this.#rows)
      row.ariaCurrent = row.classList.toggle('me', id === me) ? 'true' : null;
  }

  /** Sets the sizes that depend on scores. Each row's line is as long as its share of the leader's score. */
  #measure() {
    const [most] = this.shown.values();
    for (const [id, row] of this.#rows) {
      const share = (this.shown.get(id)?.score ?? 0) / (most.score || 1);
      row.style.setProperty('--share', String(share));
    }
    measureScores(/** @type {HTMLElement} */ (this.body.closest('main')), [...this.shown.values()]);
  }

  /** Makes names that are cut off readable. */
  #offerWhole() {
    offerWhole([...this.#rows.values()].map((row) => /** @type {HTMLElement} */ (row.querySelector('bdi'))));
  }

  /** A new row. */
  #copy(name = '') {
    const row = /** @type {HTMLTableRowElement} */ (this.spare.cloneNode(true));
    row.className = name;
    return row;
  }
}
