-- The exact ranks of some users. KEYS: order, entry, meta; ARGV: raw ids. Returns {epoch (0: no board), rank of each (0: not on it)}.
local epoch = tonumber(redis.call('HGET', KEYS[3], 'epoch') or 0)
local answer = {epoch}
for i, raw in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[2], raw)
  local rank = entry and redis.call('ZRANK', KEYS[1], string.sub(entry, 1, 16) .. raw)
  answer[i + 1] = rank and rank + 1 or 0
end
return answer
