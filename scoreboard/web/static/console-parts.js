/**
 * What the views of the console are made of. Whatever comes from the server is set as text or as a property, never as
 * markup: names, reasons and metadata are written by strangers.
 */

const times = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element with properties and children; children that are nothing are left out.
 * @param {string} name @param {Record<string, any>} [properties] @param {...Child} children @returns {any}
 */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === 'data') Object.assign(element.dataset, value);
    else /** @type {any} */ (element)[key] = value;
  }
  element.append(
    ...children.filter((child) => child || child === 0).map((child) => (child instanceof Node ? child : String(child))),
  );
  return element;
}

/** A time in the browser's language and zone. @param {string | null} at RFC 3339 */
export const when = (at) => (at ? make('time', { dateTime: at, textContent: times.format(new Date(at)) }) : '–');

/** Words for a name of the API: `points_jump` → points jump. @param {string} name */
export const words = (name) => name.replaceAll('_', ' ');

/** The address of a view. @param {string} path @param {Record<string, string>} [parameters] empty ones are left out */
export function address(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ''}`;
}

/** @param {string} userId @param {string | null} username */
export const userLink = (userId, username) =>
  make('a', { href: address(`users/${userId}`) }, make('bdi', { textContent: username ?? userId }));

/** @param {string} text @param {() => unknown} act @param {Record<string, any>} [properties] */
export function button(text, act, properties = {}) {
  const made = make('button', { type: 'button', textContent: text, ...properties });
  made.addEventListener('click', act);
  return made;
}

/**
 * A table. On a narrow screen each row is a card, with its heads before its cells.
 * @param {string} caption @param {string[]} heads @param {Child[][]} rows
 */
export function table(caption, heads, rows) {
  const head = make('tr', {}, ...heads.map((text) => make('th', { scope: 'col', textContent: text })));
  const body = rows.map((cells) =>
    make(
      'tr',
      {},
      ...cells.map((cell, column) =>
        make(column ? 'td' : 'th', { ...(column ? {} : { scope: 'row' }), data: { head: heads[column] } }, cell),
      ),
    ),
  );
  return make(
    'table',
    {},
    make('caption', { textContent: caption }),
    make('thead', {}, head),
    make('tbody', {}, ...body),
  );
}

/** Names and values. @param {[string, Child][]} pairs */
export const facts = (pairs) =>
  make(
    'dl',
    {},
    ...pairs.map(([name, value]) => make('div', {}, make('dt', { textContent: name }), make('dd', {}, value))),
  );

/** Data of a stranger, as JSON. @param {unknown} data */
export const json = (data) =>
  data === null || data === undefined ? '' : make('code', { textContent: JSON.stringify(data) });

/**
 * Links of one choice.
 * @param {string} label @param {[string, string, boolean][]} links text, address, whether it is shown now
 */
export const choices = (label, links) =>
  make(
    'p',
    { className: 'choices', role: 'group', ariaLabel: label },
    ...links.map(([text, href, isCurrent]) =>
      make('a', { href, textContent: text, ariaCurrent: isCurrent ? 'true' : null }),
    ),
  );

/**
 * The link to the next page; nothing on the last one.
 * @param {string} text @param {string} path @param {Record<string, string>} parameters @param {string | null} next
 */
export const nextPage = (text, path, parameters, next) =>
  next &&
  make(
    'p',
    {},
    make('a', { className: 'more', href: address(path, { ...parameters, cursor: next }), textContent: text }),
  );
