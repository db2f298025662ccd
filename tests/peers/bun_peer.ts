// The same job on Bun, with nothing but what Bun brings (Bun.serve, Bun.sql, Bun.redis), as one ordinarily writes it.
//
// `tests/bench` starts it when a Bun is there, and compares. It does for an action what fastapi_peer.py does, step by step, and takes the same cheaper ways: HS256
// instead of EdDSA, one action secret for all, names remembered in the process, totals by ZINCRBY (its ranks among equals are not exact).
// Env: DATABASE_URL, REDIS_URL, JWT_SECRET, ACTION_SECRET, USER_PER_MINUTE, PORT. Tables: schema.sql.
import { CryptoHasher, RedisClient, SQL } from "bun";
import { timingSafeEqual } from "node:crypto";

const JWT_SECRET = process.env.JWT_SECRET!;
const ACTION_SECRET = process.env.ACTION_SECRET!;
const USER_PER_MINUTE = Number(process.env.USER_PER_MINUTE ?? "10");
const POINTS: Record<string, number> = { quiz_complete: 100, task_finish: 50, puzzle_solve: 80, daily_checkin: 10 };
const OLDEST = 300_000, NEWEST = 60_000; // milliseconds; a timestamp further back or ahead is refused
const WINDOW = 60_000; // milliseconds of the sliding window
const PROFILES = 300_000; // milliseconds that a name is remembered; the specification's 5 minutes
const POOL = 20; // connections to PostgreSQL; 10 and 40 measured alike
const FIELDS = new Set(["actionId", "actionType", "timestamp", "metadata", "userId"]);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

const sql = new SQL(process.env.DATABASE_URL!, { max: POOL });
const redis = new RedisClient(process.env.REDIS_URL!); // one connection; what is asked at the same time is pipelined
const names = new Map<string, { name: string; until: number }>();

const refused = (status: number, code: string) => Response.json({ success: false, code }, { status });

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a), right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

/** The token's subject, or null. */
function verify(token: string): string | null {
  const [head, payload, signature, more] = token.split(".");
  if (signature === undefined || more !== undefined) return null;
  const expected = new CryptoHasher("sha256", JWT_SECRET).update(`${head}.${payload}`).digest("base64url");
  if (!equal(expected, signature)) return null;
  try {
    if (JSON.parse(Buffer.from(head, "base64url").toString()).alg !== "HS256") return null;
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString());
    const now = Date.now() / 1000;
    return typeof claims.exp === "number" && claims.exp > now && typeof claims.iat === "number" && UUID.test(claims.sub) ? claims.sub : null;
  } catch {
    return null;
  }
}

type Action = { actionId: string; actionType: string; timestamp: string; metadata?: Record<string, unknown> | null; userId?: string };

function decode(text: string): Action | null {
  try {
    const action = JSON.parse(text);
    if (typeof action !== "object" || action === null || Array.isArray(action)) return null;
    for (const name in action) if (!FIELDS.has(name)) return null;
    if (typeof action.actionId !== "string" || action.actionId.length < 1 || action.actionId.length > 100) return null;
    if (typeof action.actionType !== "string" || typeof action.timestamp !== "string" || !RFC3339.test(action.timestamp)) return null;
    if (action.metadata != null && (typeof action.metadata !== "object" || Array.isArray(action.metadata))) return null;
    if (action.userId != null && typeof action.userId !== "string") return null;
    return action;
  } catch {
    return null;
  }
}

async function submitAction(request: Request): Promise<Response> {
  const user = verify((request.headers.get("authorization") ?? "").replace(/^Bearer /, ""));
  if (user === null) return refused(401, "UNAUTHORIZED");

  const body = await request.text();
  const signature = request.headers.get("x-action-signature") ?? "";
  if (!equal(new CryptoHasher("sha256", ACTION_SECRET).update(body).digest("hex"), signature)) return refused(403, "INVALID_SIGNATURE");

  const action = decode(body);
  if (action === null) return refused(400, "INVALID_ACTION");
  if (action.userId != null && action.userId !== user) return refused(403, "INVALID_SIGNATURE");
  const now = Date.now(), age = now - Date.parse(action.timestamp);
  const points = Object.hasOwn(POINTS, action.actionType) ? POINTS[action.actionType] : 0;
  if (!points || !(age > -NEWEST && age < OLDEST)) return refused(400, "INVALID_ACTION");

  const key = `rate_limit:user:${user}`;
  const [, , taken] = await Promise.all([
    redis.send("ZREMRANGEBYSCORE", [key, "0", String(now - WINDOW)]),
    redis.send("ZADD", [key, String(now), action.actionId]),
    redis.send("ZCARD", [key]),
    redis.send("PEXPIRE", [key, String(WINDOW)]),
  ]);
  if (Number(taken) > USER_PER_MINUTE) return refused(429, "RATE_LIMITED");

  const total: number | null = await sql.begin(async (tx) => {
    const fresh = await tx`
      INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, signature, metadata)
      VALUES (${user}, ${action.actionId}, ${action.actionType}, ${points}, ${signature}, ${action.metadata ?? {}})
      ON CONFLICT (user_id, action_id) DO NOTHING RETURNING id`;
    if (fresh.length === 0) return null;
    const [row] = await tx`
      INSERT INTO scores (user_id, total_score) VALUES (${user}, ${points})
      ON CONFLICT (user_id) DO UPDATE SET total_score = scores.total_score + excluded.total_score, updated_at = now() RETURNING total_score`;
    return Number(row.total_score);
  });
  if (total === null) return refused(409, "DUPLICATE_ACTION");

  const outcome = { userId: user, previousScore: total - points, pointsAwarded: points, newScore: total };
  const [, rank] = await Promise.all([
    redis.send("ZINCRBY", ["leaderboard", String(points), user]),
    redis.send("ZREVRANK", ["leaderboard", user]),
    redis.send("PUBLISH", ["scoreboard:updates", JSON.stringify(outcome)]),
  ]);
  return Response.json({ success: true, data: { ...outcome, newRank: Number(rank) + 1, timestamp: new Date().toISOString() } });
}

async function leaderboard(request: Request): Promise<Response> {
  const query = request.url.indexOf("?");
  const limit = Number((query < 0 ? null : new URLSearchParams(request.url.slice(query)).get("limit")) ?? "10");
  if (!Number.isInteger(limit) || limit < 1 || limit > 100) return refused(400, "INVALID_REQUEST");
  // As pairs (RESP3) or flat (RESP2), whichever the connection speaks.
  const flat = ((await redis.send("ZREVRANGE", ["leaderboard", "0", String(limit - 1), "WITHSCORES"])) as unknown[]).flat() as (string | number)[];
  const now = Date.now(), missing: string[] = [];
  for (let i = 0; i < flat.length; i += 2) if (!((names.get(flat[i] as string)?.until ?? 0) > now)) missing.push(flat[i] as string);
  if (missing.length)
    for (const row of await sql`SELECT id, username FROM users WHERE id IN ${sql(missing)}`) names.set(row.id, { name: row.username, until: now + PROFILES });
  const rows = [];
  for (let i = 0; i < flat.length; i += 2)
    rows.push({ rank: i / 2 + 1, userId: flat[i], username: names.get(flat[i] as string)!.name, score: Number(flat[i + 1]) });
  return Response.json({ success: true, data: { leaderboard: rows, lastUpdated: new Date(now).toISOString() } });
}

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  routes: {
    "/readyz": async () => {
      await Promise.all([sql`SELECT 1`, redis.send("PING", [])]);
      return Response.json({ ready: true });
    },
    "/api/v1/scores/action": { POST: submitAction },
    "/api/v1/scores/leaderboard": { GET: leaderboard },
  },
  fetch: () => refused(404, "NOT_FOUND"),
});
