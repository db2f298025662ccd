-- One consistent read of a board: its marks, its first members, and how far it has come with some writers.
-- KEYS: totals, order, entry, meta, applied. ARGV: installation, index of the last member, then writers.
-- Returns {epoch, version, top, top_at (ms), updated (ms), names, now (ms), incomplete (1/0), members, applied sequence
-- of each writer (0: none)}; an empty list without a whole board.
local epoch, version, top, _, _, _, incomplete = whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1])
if not epoch then return {} end
local meta = redis.call('HMGET', KEYS[4], 'top_at', 'updated', 'names')
local now = redis.call('TIME')
local applied = {}
for i = 3, #ARGV do applied[i - 2] = tonumber(redis.call('HGET', KEYS[5], ARGV[i]) or 0) end
return {epoch, version, top, tonumber(meta[1] or 0), tonumber(meta[2] or 0), tonumber(meta[3] or 0),
  now[1] * 1000 + math.floor(now[2] / 1000), incomplete and 1 or 0, redis.call('ZRANGE', KEYS[2], 0, ARGV[2]), applied}
