import { useEffect, useState } from 'react';
import { connect, type Entry, type State, type Token } from 'scoreboard';

/**
 * The ten best, live. Components with the same arguments share one connection.
 * Pass `token` as a session's own function: `session.token`.
 */
export function useLeaderboard(url: string, token: Token = null) {
  const [rows, setRows] = useState<Entry[]>([]);
  const [state, setState] = useState<State | null>(null);
  useEffect(() => {
    const live = connect({ url, token });
    live.addEventListener('board', ({ detail }) => setRows(detail.leaderboard));
    live.addEventListener('state', ({ detail }) => setState(detail));
    return () => live.close();
  }, [url, token]);
  return { rows, state };
}

export function Leaderboard({ url }: { url: string }) {
  const { rows, state } = useLeaderboard(url);
  return (
    <ol aria-busy={state?.name !== 'live'}>
      {rows.map((row) => <li key={row.userId}>{row.username}: {row.score}</li>)}
    </ol>
  );
}
