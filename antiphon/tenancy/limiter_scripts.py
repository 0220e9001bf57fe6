"""The limiter's steps as Redis runs them: each is one step for everybody, by the server's clock.

KEYS of all: the tenant's buckets (a hash of level and time for each budget), its open reservations (a sorted set by
when they may be forgotten), and of the places those of the kind in question (by when the lease ends). Levels are
amounts times 60,000, as in `bucket`: whole numbers, exact up to 2^53.
"""

from typing import Final

from antiphon.storage.scripts import Script

_CLOCK: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_LEVELS: Final = """
local function level_of(budget, limit)
  local kept = redis.call('HMGET', KEYS[1], budget .. ':level', budget .. ':at')
  local full = limit * 60000
  if not kept[1] then return full end
  return math.min(full, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * limit)
end
local function keep(budget, level, limit)
  redis.call('HSET', KEYS[1], budget .. ':level', string.format('%.0f', level), budget .. ':at',
    string.format('%.0f', now))
  if limit > 0 then
    local full_in = math.ceil((limit * 60000 - level) / limit)
    if full_in > redis.call('PTTL', KEYS[1]) then redis.call('PEXPIRE', KEYS[1], full_in + 60000) end
  end
end
"""

# ARGV: id, lease in ms, how long a reservation is remembered in ms, the limit of places (-1 for none), what the ids of
# those begin with whose place is taken over (empty for none), then budget, limit and amount for each limited budget.
# Reply: [0] when reserved; [1] when no place is left; [2, index of the budget from 0, its level] when it is spent.
RESERVE: Final = Script(
    _CLOCK
    + _LEVELS
    + """
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {0} end
local levels = {}
for at = 6, #ARGV, 3 do
  local limit, amount = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  levels[at] = level_of(ARGV[at], limit)
  if amount > 0 and (limit == 0 or levels[at] < math.min(amount, limit) * 60000) then
    return {2, (at - 6) / 3, string.format('%.0f', levels[at])}
  end
end
local places = tonumber(ARGV[4])
if KEYS[3] then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))
  local mine = {}
  if #ARGV[5] > 0 then
    for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
      if string.sub(id, 1, #ARGV[5]) == ARGV[5] then mine[#mine + 1] = id end
    end
  end
  if places >= 0 and redis.call('ZCARD', KEYS[3]) - #mine >= places then return {1} end
  for _, id in ipairs(mine) do redis.call('ZREM', KEYS[3], id) end
  redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
for at = 6, #ARGV, 3 do
  local limit = tonumber(ARGV[at + 1])
  keep(ARGV[at], levels[at] - tonumber(ARGV[at + 2]) * 60000, limit)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {0}
"""
)

# ARGV: id, then budget, limit and what is given back (below zero: taken) for each limited budget.
SETTLE: Final = Script(
    _CLOCK
    + _LEVELS
    + """
if KEYS[3] then redis.call('ZREM', KEYS[3], ARGV[1]) end
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
for at = 2, #ARGV, 3 do
  local limit = tonumber(ARGV[at + 1])
  local level = level_of(ARGV[at], limit) + tonumber(ARGV[at + 2]) * 60000
  keep(ARGV[at], math.min(level, limit * 60000), limit)
end
return 1
"""
)

# KEYS: the places of one kind. ARGV: lease in ms, how long the set is kept in ms, then ids.
RENEW: Final = Script(
    _CLOCK
    + """
for at = 3, #ARGV do redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now + ARGV[1]), ARGV[at]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
"""
)

# ARGV: budget and limit for each. Reply: the level of each.
STANDING: Final = Script(
    _CLOCK
    + _LEVELS
    + """
local levels = {}
for at = 1, #ARGV, 2 do levels[#levels + 1] = string.format('%.0f', level_of(ARGV[at], tonumber(ARGV[at + 1]))) end
return levels
"""
)
