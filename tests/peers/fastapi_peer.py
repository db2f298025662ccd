"""The same job on FastAPI, uvicorn, uvloop, asyncpg and redis-py, as one ordinarily writes it: a handler that reads
like the specification.

`tests/bench` starts it with uvicorn and compares. It does what this server does for an action: token, signature,
validation, sliding window, idempotency by the unique constraint, one transaction, board, rank, publish. Where one may
choose it takes the cheaper way: HS256 instead of EdDSA, one action secret for all, names remembered in the process,
totals by ZINCRBY (its ranks among equals are not exact). Env: DATABASE_URL, REDIS_URL, JWT_SECRET, ACTION_SECRET,
USER_PER_MINUTE. Tables: schema.sql.
"""

import hmac
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import asyncpg
import jwt
import redis.asyncio as redis
from fastapi import FastAPI, Header, HTTPException, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

JWT_SECRET = os.environ["JWT_SECRET"]
ACTION_SECRET = os.environ["ACTION_SECRET"].encode()
USER_PER_MINUTE = int(os.environ.get("USER_PER_MINUTE", "10"))
POINTS = {"quiz_complete": 100, "task_finish": 50, "puzzle_solve": 80, "daily_checkin": 10}
OLDEST, NEWEST = timedelta(minutes=5), timedelta(seconds=60)  # a timestamp further back or ahead is refused
WINDOW = 60.0  # seconds of the sliding window
PROFILES = 300.0  # seconds that a name is remembered; the specification's 5 minutes
POOL = 20  # connections to PostgreSQL; 10 and 40 measured alike


class Action(BaseModel):
    model_config = ConfigDict(extra="forbid")
    actionId: str = Field(min_length=1, max_length=100)
    actionType: str
    timestamp: AwareDatetime
    metadata: dict[str, Any] | None = None
    userId: uuid.UUID | None = None


class Outcome(BaseModel):
    userId: uuid.UUID
    previousScore: int
    pointsAwarded: int
    newScore: int
    newRank: int
    timestamp: datetime


class ActionAnswer(BaseModel):
    success: bool = True
    data: Outcome


class Entry(BaseModel):
    rank: int
    userId: str
    username: str
    score: int


class Board(BaseModel):
    leaderboard: list[Entry]
    lastUpdated: datetime


class BoardAnswer(BaseModel):
    success: bool = True
    data: Board


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # A bound that is never reached: redis-py's blocking pool, which waits at its bound, cost a tenth of the actions.
    app.state.redis = redis.from_url(os.environ["REDIS_URL"], max_connections=1000)
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL) as app.state.postgres:
        yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)
# user id → name, and until when it holds; bounded by the users that ever stood in a top
names: dict[str, tuple[str, float]] = {}


def refused(status: int, code: str) -> HTTPException:
    return HTTPException(status, {"success": False, "code": code})


@app.get("/readyz")
async def readyz(request: Request) -> dict[str, bool]:
    await request.app.state.postgres.fetchval("SELECT 1")
    await request.app.state.redis.ping()
    return {"ready": True}


@app.post("/api/v1/scores/action")
async def submit_action(
    request: Request,
    authorization: Annotated[str, Header()] = "",
    x_action_signature: Annotated[str, Header()] = "",
) -> ActionAnswer:
    postgres, store = request.app.state.postgres, request.app.state.redis
    try:
        claims = jwt.decode(
            authorization.removeprefix("Bearer "),
            JWT_SECRET,
            algorithms=["HS256"],
            options={"require": ["exp", "iat", "sub"]},
        )
    except jwt.PyJWTError:
        raise refused(401, "UNAUTHORIZED") from None
    user = uuid.UUID(claims["sub"])

    body = await request.body()
    expected = hmac.new(ACTION_SECRET, body, "sha256").hexdigest()
    if not hmac.compare_digest(expected, x_action_signature):
        raise refused(403, "INVALID_SIGNATURE")

    try:
        action = Action.model_validate_json(body)
    except ValidationError:
        raise refused(400, "INVALID_ACTION") from None
    if action.userId not in {None, user}:
        raise refused(403, "INVALID_SIGNATURE")
    points, age = POINTS.get(action.actionType), datetime.now(UTC) - action.timestamp
    if points is None or not -NEWEST < age < OLDEST:
        raise refused(400, "INVALID_ACTION")

    key, now = f"rate_limit:user:{user}", time.time()
    async with store.pipeline() as pipe:
        pipe.zremrangebyscore(key, 0, now - WINDOW).zadd(key, {action.actionId: now}).zcard(key).expire(
            key, int(WINDOW)
        )
        _, _, taken, _ = await pipe.execute()
    if taken > USER_PER_MINUTE:
        raise refused(429, "RATE_LIMITED")

    async with postgres.acquire() as connection, connection.transaction():
        fresh = await connection.fetchval(
            "INSERT INTO action_logs (user_id, action_id, action_type, points_awarded, signature, metadata)"
            " VALUES ($1, $2, $3, $4, $5, $6)"
            " ON CONFLICT (user_id, action_id) DO NOTHING RETURNING id",
            user,
            action.actionId,
            action.actionType,
            points,
            x_action_signature,
            json.dumps(action.metadata or {}),
        )
        if fresh is None:
            raise refused(409, "DUPLICATE_ACTION")
        total = await connection.fetchval(
            "INSERT INTO scores (user_id, total_score) VALUES ($1, $2)"
            " ON CONFLICT (user_id) DO UPDATE"
            " SET total_score = scores.total_score + excluded.total_score, updated_at = now()"
            " RETURNING total_score",
            user,
            points,
        )

    message = json.dumps(
        {"userId": str(user), "previousScore": total - points, "newScore": total, "pointsAwarded": points}
    )
    async with store.pipeline() as pipe:
        pipe.zincrby("leaderboard", points, str(user)).zrevrank("leaderboard", str(user)).publish(
            "scoreboard:updates", message
        )
        _, rank, _ = await pipe.execute()
    return ActionAnswer(
        data=Outcome(
            userId=user,
            previousScore=total - points,
            pointsAwarded=points,
            newScore=total,
            newRank=rank + 1,
            timestamp=datetime.now(UTC),
        )
    )


@app.get("/api/v1/scores/leaderboard")
async def leaderboard(request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> BoardAnswer:
    rows = await request.app.state.redis.zrevrange("leaderboard", 0, limit - 1, withscores=True)
    found = [(member.decode(), int(score)) for member, score in rows]
    now = time.monotonic()
    if missing := [user for user, _ in found if user not in names or names[user][1] < now]:
        for row in await request.app.state.postgres.fetch(
            "SELECT id::text, username FROM users WHERE id = ANY($1::uuid[])", missing
        ):
            names[row["id"]] = (row["username"], now + PROFILES)
    entries = [
        Entry(rank=place, userId=user, username=names[user][0], score=score)
        for place, (user, score) in enumerate(found, 1)
    ]
    return BoardAnswer(data=Board(leaderboard=entries, lastUpdated=datetime.now(UTC)))
