-- One user's place on a board. KEYS: order, entry, meta. ARGV: raw user id.
-- Returns {epoch, version, order key (nil: never on the board), rank (0: not on the board)}.
local meta = redis.call('HMGET', KEYS[3], 'epoch', 'version')
local entry = redis.call('HGET', KEYS[2], ARGV[1])
local key = entry and string.sub(entry, 1, 16)
local rank = key and redis.call('ZRANK', KEYS[1], key .. ARGV[1])
return {meta[1], meta[2], key, rank and rank + 1 or 0}
