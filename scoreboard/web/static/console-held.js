/** The console's view of held actions: what waits for a decision, its evidence as a file, and the decision. */
import { button, facts, json, make, nextPage, userLink, when } from './console-parts.js';
import { digits } from './drawing.js';

/** @import { Console } from './console.js' */

/** @param {Console} console */
export async function showHeld(console) {
  const { cursor = '' } = console.parameters;
  const found = await console.request(`held?${new URLSearchParams({ cursor })}`);
  /** @type {any[]} */ const held = found.held;
  return [
    make('h2', { textContent: 'Held actions' }),
    held.length
      ? make('ul', { className: 'cards' }, ...held.map((action) => card(console, action)))
      : make('p', { textContent: 'Nothing waits.' }),
    nextPage('Newer', 'held', {}, found.next),
  ];
}

/** @param {Console} console @param {any} action */
function card(console, action) {
  const { heldId, userId, username, actionId, actionType, points, metadata, evidenceSize, isUploaded } = action;
  const name = username ?? userId;
  /** @param {'approve' | 'refuse'} verdict @param {string} about @param {string} done */
  const decision = (verdict, about, done) => () =>
    console.decide({
      title: verdict === 'approve' ? 'Approve' : 'Refuse',
      about: `${actionType} ${actionId} of ${name}, ${digits(points)} points. ${about}`,
      confirm: verdict === 'approve' ? 'Approve' : 'Refuse',
      done,
      help: verdict === 'refuse' ? 'The user reads this reason.' : '',
      act: (reason) => console.request(`held/${heldId}`, 'POST', { verdict, reason }),
    });
  const approve = decision('approve', 'They count.', `The action of ${name} counts.`);
  const refuse = decision('refuse', 'They do not count.', `The action of ${name} is refused.`);
  const lacksEvidence = evidenceSize > 0 && !isUploaded;
  return make(
    'li',
    { data: { held: heldId } },
    make('h3', {}, `${actionType}, ${digits(points)} points: `, userLink(userId, username)),
    facts([
      ['Since', when(action.heldAt)],
      [action.undecided === 'approve' ? 'Counts by itself' : 'Is refused by itself', when(action.expiresAt)],
      ['Action id', make('code', { textContent: actionId })],
      ...(metadata ? /** @type {[string, any][]} */ ([['Metadata', json(metadata)]]) : []),
      ...(evidenceSize
        ? /** @type {[string, string][]} */ ([
            ['Evidence', lacksEvidence ? 'not uploaded yet' : `${digits(evidenceSize)} bytes`],
          ])
        : []),
    ]),
    make(
      'p',
      { className: 'choices' },
      isUploaded &&
        evidenceSize > 0 &&
        button('Download the evidence', () => download(console, heldId), {
          ariaLabel: `Download the evidence of ${actionId}`,
        }),
      console.may('moderator') &&
        userId !== console.own &&
        button('Approve', approve, { ariaLabel: `Approve ${actionId} of ${name}` }),
      console.may('moderator') &&
        userId !== console.own &&
        button('Refuse', refuse, { ariaLabel: `Refuse ${actionId} of ${name}` }),
    ),
  );
}

/**
 * Saves the evidence as a file: a stranger's bytes, which this page never shows.
 * @param {Console} console @param {string} heldId
 */
async function download({ token, announce }, heldId) {
  const answer = await fetch(`/api/v1/admin/held/${heldId}/evidence`, {
    headers: { Authorization: `Bearer ${await token()}` },
    cache: 'no-store',
  }).catch(() => null);
  if (!answer?.ok)
    return announce(
      answer?.status === 404 ? 'There is no evidence of this action any more.' : 'The evidence could not be read.',
    );
  const url = URL.createObjectURL(await answer.blob());
  make('a', { href: url, download: `evidence-${heldId}.bin` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser has begun to save it long before
}
