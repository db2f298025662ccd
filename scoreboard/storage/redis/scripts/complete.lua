-- Says that a board that was put in place has got everything that was committed before. KEYS: totals, order, entry,
-- meta, applied, channel.
-- ARGV: installation, epoch, board. Returns the new version; 0 when it is not that board any more.
local epoch, version = whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1])
if epoch ~= tonumber(ARGV[2]) then return 0 end
version = version + 1
local now = redis.call('TIME')
redis.call('HDEL', KEYS[4], 'incomplete')
redis.call('HSET', KEYS[4], 'version', version, 'top', version, 'top_at', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('PUBLISH', KEYS[6], table.concat({'board', ARGV[1], ARGV[3], ARGV[2], version, version, '', '[]'}, '\n'))
return version
