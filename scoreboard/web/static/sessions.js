/** The list of one's own sessions, in the account's panel: read when it is opened; each but this one can be ended. */
import { Refused } from './actions.js';
import { clock, write } from './words.js';

/** @import { Account } from './account.js' */
/** @typedef {{id: string, client: string, createdAt: string, lastUsedAt: string, current: boolean}} OwnSession */

const PATH = 'users/me/sessions';
const SHOWN = 20; // the newest; the button below ends all others too

/**
 * @param {any} box the `details` element with the list
 * @param {Account} account @param {(words: string) => void} announce @param {(refused: Refused) => string} refusalWords
 */
export function setUpSessions(box, account, announce, refusalWords) {
  const list = box.querySelector('ul');
  const failure = box.querySelector('[role=alert]');
  const others = box.querySelector('#others');

  /** One request about the list; null when it failed, and the words say so. @param {string} path @param {string} method */
  async function request(path, method = 'GET') {
    try {
      const answer = await account.ask(path, { method });
      if (answer.status >= 300 || !answer.status) throw new Refused(answer);
      write(failure, '');
      return answer;
    } catch (error) {
      write(failure, refusalWords(/** @type {Refused} */ (error)));
      return null;
    }
  }

  /** Ends what the path names, and reads the list again. */
  async function end(path = '', words = '') {
    if (!(await request(path, 'DELETE'))) return;
    await draw();
    box.querySelector('summary').focus(); // the button is gone
    announce(words);
  }

  /** One row. @param {OwnSession} session */
  function row({ id, client, lastUsedAt, current }) {
    const [item, text, more] = ['li', 'span', 'small'].map((name) => document.createElement(name));
    const name = client || 'Another program';
    const used = `last used ${clock(lastUsedAt)}`;
    more.textContent = current ? 'here, now' : used;
    text.append(name, more);
    item.append(text);
    if (current) return item;
    const button = document.createElement('button');
    Object.assign(button, { type: 'button', className: 'quiet', textContent: 'Log out' });
    button.ariaLabel = `Log out ${name}, ${used}`;
    button.addEventListener('click', () => end(`${PATH}/${id}`, `${name} is logged out.`));
    item.append(button);
    return item;
  }

  async function draw() {
    const answer = await request(`${PATH}?limit=${SHOWN}`);
    /** @type {OwnSession[]} */ const sessions = answer?.json?.data?.sessions ?? [];
    list.replaceChildren(...sessions.map(row));
    others.hidden = sessions.length < 2;
  }

  box.addEventListener('toggle', () => box.open && draw());
  others.addEventListener('click', () => end(`${PATH}?keep=current`, 'All others are logged out.'));
  account.addEventListener('change', () => account.user || (box.open = false));
}
