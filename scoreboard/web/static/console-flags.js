/** The console's view of flags: what the rules for anomalies found, with the evidence, and the decision about it. */
import { address, button, choices, facts, make, nextPage, userLink, when, words } from './console-parts.js';
import { digits } from './drawing.js';

/** @import { Console } from './console.js' */

const STATES = ['open', 'approved', 'revoked', 'all'];

/** @param {Console} console */
export async function showFlags(console) {
  const { state = 'open', user = '', cursor = '' } = console.parameters;
  const asked = { state: state === 'all' ? '' : state, user, cursor };
  const found = await console.request(`flags?${new URLSearchParams(asked)}`);
  /** @type {any[]} */ const flags = found.flags;
  return [
    make('h2', { textContent: 'Flags' }),
    choices(
      'State',
      STATES.map((name) => [name, address('flags', { state: name, user }), name === state]),
    ),
    user && make('p', {}, 'Of one user. ', make('a', { href: address('flags'), textContent: 'Of all' })),
    flags.length
      ? make('ul', { className: 'cards' }, ...flags.map((flag) => card(console, flag)))
      : make('p', { textContent: 'No flags.' }),
    nextPage('Older flags', 'flags', { state, user }, found.next),
  ];
}

/** @param {Console} console @param {any} flag */
function card(console, flag) {
  const { flagId, rule, userId, username, evidence, hits, state } = flag;
  const name = username ?? userId;
  /** @param {'approve' | 'revoke'} verdict @param {string} about @param {string} done */
  const decision = (verdict, about, done) => () =>
    console.decide({
      title: verdict === 'approve' ? 'Approve' : 'Revoke',
      about: `${words(rule)}, ${name}. ${about}`,
      confirm: verdict === 'approve' ? 'Approve' : 'Revoke',
      done,
      act: (reason) => console.request(`flags/${flagId}`, 'POST', { verdict, reason }),
    });
  const approve = decision('approve', 'The actions stand.', `The flag of ${name} is approved.`);
  const revoke = decision(
    'revoke',
    'The actions do not stand. Reverse them, or ban the user, on the page of the user.',
    `The flag of ${name} is revoked.`,
  );
  const isOffered = state === 'open' && console.may('moderator') && userId !== console.own;
  return make(
    'li',
    { data: { flag: flagId } },
    make('h3', {}, `${words(rule)}: `, userLink(userId, username)),
    facts([
      ...Object.entries(evidence).map(
        ([key, value]) =>
          /** @type {[string, string]} */ ([
            words(key),
            typeof value === 'number' ? digits(value) : JSON.stringify(value),
          ]),
      ),
      ['Found', when(flag.createdAt)],
      ['Hits', `${digits(hits)}`],
      ...(hits > 1 ? /** @type {[string, any][]} */ ([['Last hit', when(flag.lastHitAt)]]) : []),
    ]),
    state !== 'open' &&
      make(
        'p',
        {},
        make('b', { textContent: state }),
        ` by ${flag.decidedByName ?? flag.decidedBy}, `,
        when(flag.decidedAt),
        `: ${flag.reason}`,
      ),
    isOffered &&
      make(
        'p',
        { className: 'choices' },
        button('Approve', approve, { ariaLabel: `Approve: ${words(rule)} of ${name}` }),
        button('Revoke', revoke, { ariaLabel: `Revoke: ${words(rule)} of ${name}` }),
      ),
  );
}
