-- One user's place on a board, and how far the board has come with some writers.
-- KEYS: totals, order, entry, meta, applied. ARGV: installation, raw user id, then writers.
-- Returns {epoch, version, incomplete (1/0), order key ('': never on the board), rank (0: not on the board), applied
-- sequence of each writer}; an empty list without a whole board. A user with a shadow ban, whose entry ends with the
-- order key that he would have (apply.lua), gets that key and its rank.
local epoch, version, _, _, _, _, incomplete = whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1])
if not epoch then return {} end
local entry = redis.call('HGET', KEYS[3], ARGV[2])
local key = entry and string.sub(entry, 1, 16)
local rank = key and redis.call('ZRANK', KEYS[2], key .. ARGV[2])
if entry and not rank and #entry > 24 then
  key = string.sub(entry, 25)
  rank = redis.call('ZLEXCOUNT', KEYS[2], '-', '(' .. key .. ARGV[2])
end
local applied = {}
for i = 3, #ARGV do applied[i - 2] = tonumber(redis.call('HGET', KEYS[5], ARGV[i]) or 0) end
return {epoch, version, incomplete and 1 or 0, key or '', rank and rank + 1 or 0, applied}
