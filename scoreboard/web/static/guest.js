/** Playing without an account, where the server has guests, and the form that makes an account of a guest. */
import { write } from './words.js';

/** @import { Account } from './account.js' */
/** @import { Refused } from './actions.js' */

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
/** The id of the form's field for one of the API. */
const idOf = (field = '') => 'link' + field.charAt(0).toUpperCase() + field.slice(1);

/**
 * Makes the button and the form work. Does nothing where the server has no guests.
 * @param {Account} account @param {(form: any, send: (fields: any) => Promise<unknown>) => void} handleForm
 * @param {(words: string) => void} announce @param {(refused: Refused) => string} refusalWords
 */
export function setUpGuest(account, handleForm, announce, refusalWords) {
  const button = $('guest');
  if (!button) return;
  button.addEventListener('click', async () => {
    if (button.ariaBusy) return;
    button.ariaBusy = 'true';
    write($('form-error'), '');
    try {
      await account.enterAsGuest();
      $('me').querySelector('[data-action], #leave')?.focus();
    } catch (error) {
      const refused = /** @type {Refused} */ (error);
      write($('form-error'), refused.status === 401 ? refused.message : refusalWords(refused));
    }
    button.ariaBusy = null;
  });

  $('linkUsername').minLength = 3;
  $('linkPassword').minLength = 10;
  handleForm($('link'), async ({ linkUsername: username, linkEmail: email, linkPassword: password }) => {
    try {
      await account.link({ username, email, password });
    } catch (error) {
      const refused = /** @type {Refused} */ (error);
      refused.errors = refused.errors.map(({ field, message }) => ({ field: idOf(field), message }));
      throw refused;
    }
    $('keep').open = false;
    announce('This is your account now. Next time, log in with your password.');
    $('leave').focus();
  });

  /** Offers an account to a guest, and a change of the password to everybody else. */
  async function showOffer() {
    const { user } = account;
    const answer = user && (await account.ask('users/me').catch(() => null));
    if (account.user !== user) return;
    const isGuest = Boolean(answer?.json?.data?.guest);
    $('keep').hidden = !isGuest;
    $('change').parentElement.hidden = isGuest;
    if (isGuest && !$('linkUsername').value) $('linkUsername').value = user?.username;
  }
  account.addEventListener('change', showOffer);
}
