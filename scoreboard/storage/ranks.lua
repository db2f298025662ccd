-- The exact ranks of some users. KEYS: totals, order, entry, meta, applied. ARGV: installation, then raw ids.
-- Returns {epoch (0: no whole board, or an incomplete one), rank of each (0: not on it)}.
local epoch, _, _, _, _, _, incomplete = whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1])
local answer = {epoch and not incomplete and epoch or 0}
for i = 2, #ARGV do
  local entry = answer[1] > 0 and redis.call('HGET', KEYS[3], ARGV[i])
  local rank = entry and redis.call('ZRANK', KEYS[2], string.sub(entry, 1, 16) .. ARGV[i])
  answer[i] = rank and rank + 1 or 0
end
return answer
