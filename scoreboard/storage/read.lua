-- One consistent read of a board: its marks and its first members.
-- KEYS: order, meta. ARGV: index of the last member.
-- Returns {epoch, version, top, updated (ms), names, now (ms), members}; the first five nil where the board has none.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'version', 'top', 'updated', 'names')
local now = redis.call('TIME')
return {meta[1], meta[2], meta[3], meta[4], meta[5], now[1] * 1000 + math.floor(now[2] / 1000), redis.call('ZRANGE', KEYS[1], 0, ARGV[1])}
