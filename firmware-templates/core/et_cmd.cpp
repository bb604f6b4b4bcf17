// Commands: one line `<id> <op>[ <argument>…]`. All of a command is done or nothing.
#include "et_core.h"

namespace et {

namespace {

const uint8_t WORDS_MAX = 14;

bool number(const char *text, uint32_t &to) {
  uint32_t sum = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return false;
    const uint8_t digit = static_cast<uint8_t>(*text - '0');
    if (sum > (0xFFFFFFFFUL - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  to = sum;
  return true;
}

bool number64(const char *text, uint64_t &to) {
  uint64_t sum = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return false;
    const uint8_t digit = static_cast<uint8_t>(*text - '0');
    if (sum > (0xFFFFFFFFFFFFFFFFULL - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  to = sum;
  return true;
}

// Cuts a text at `mark`; what follows it, or none.
char *cut(char *text, char mark) {
  char *at = strchr(text, mark);
  if (!at) return 0;
  *at = 0;
  return at + 1;
}

int8_t hex(char c) {
  if (c >= '0' && c <= '9') return static_cast<int8_t>(c - '0');
  if (c >= 'A' && c <= 'F') return static_cast<int8_t>(c - 'A' + 10);
  if (c >= 'a' && c <= 'f') return static_cast<int8_t>(c - 'a' + 10);
  return -1;
}

void unescape(char *text) {
  char *to = text;
  for (; *text; text++) {
    if (*text == '%' && hex(text[1]) >= 0 && hex(text[2]) >= 0) {
      *to++ = static_cast<char>(hex(text[1]) << 4 | hex(text[2]));
      text += 2;
    } else {
      *to++ = *text;
    }
  }
  *to = 0;
}

bool is(const char *word, const char *flash) { return et_flash_compare(word, flash) == 0; }

}  // namespace

bool Node::decimal(const char *text, uint8_t places, value_t &value) const {
  const bool negative = *text == '-';
  if (negative) text++;
  char whole[11];
  uint8_t len = 0;
  for (; *text >= '0' && *text <= '9'; text++) {
    if (len == 10) return false;
    whole[len++] = *text;
  }
  whole[len] = 0;
  uint32_t units, part = 0;
  uint8_t digits = 0;
  if (!number(whole, units) || units > 0x7FFFFFFFUL) return false;
  if (*text == '.') {
    for (text++; *text >= '0' && *text <= '9'; text++, digits++) part = part * 10 + static_cast<uint8_t>(*text - '0');
    if (!digits || digits > 6) return false;
  }
  if (*text || (units == 0x7FFFFFFFUL && part)) return false;
  for (; digits < 6; digits++) part *= 10;
  uint32_t unit = 1000000, scale = 1;
  for (uint8_t i = 0; i < places; i++) {
    unit /= 10;
    scale *= 10;
  }
  const uint64_t scaled = static_cast<uint64_t>(units) * scale + (part + unit / 2) / unit;
  if (scaled > 0x7FFFFFFFUL) return false;
  value = negative ? -static_cast<value_t>(scaled) : static_cast<value_t>(scaled);
  return true;
}

int8_t Node::find(const char *name, uint8_t from, uint8_t to) const {
  const char *slash = strchr(name, '/');
  for (uint8_t i = from; i < to; i++) {
    const Property &property = properties[i];
    if (!slash) {
      if (!et_flash_byte(&property.nested) && is(name, property.name)) return static_cast<int8_t>(i);
      continue;
    }
    const size_t len = static_cast<size_t>(slash - name);
    if (et_flash_len(property.feature) == len && et_flash_compare_n(name, property.feature, len) == 0 &&
        is(slash + 1, property.name))
      return static_cast<int8_t>(i);
  }
  return -1;
}

void Node::command(char *body, uint32_t now, bool intact) {
  Answer refusal = {0, RANGE, WHY_ID, 0};
  if (!intact) {
    refusal.status = CRC;
    return answer(refusal, false, now);
  }
  const bool fits = strlen(body) <= BODY_MAX;
  bool printable = true;
  for (const char *c = body; *c; c++)
    if (*c < ' ' || *c > '~') printable = false;
  char *words[WORDS_MAX];
  uint8_t count = 0;
  for (char *word = body; word;) {
    char *rest = cut(word, ' ');
    if (*word && count < WORDS_MAX) words[count++] = word;
    word = rest;
  }
  if (!count || !number(words[0], refusal.id)) return answer(refusal, false, now);
  if (!refusal.id) return answer(refusal, false, now);
  for (uint8_t i = 0; i < IDS; i++) {
    if (answers_[i].id != refusal.id) continue;
    if (answers_[i].status == OK) {
      renewed_ = now;
      leased_ = true;
    }
    return answer(answers_[i], true, now);
  }
  if (!fits || !printable) {
    refusal.why = WHY_LENGTH;
    return answer(refusal, false, now);
  }
  execute(refusal.id, words + 1, static_cast<uint8_t>(count - 1), now);
}

void Node::desired(uint32_t version, char *body, uint32_t now) {
  if (version <= version_ || strlen(body) > BODY_MAX) return;
  char *words[WORDS_MAX];
  uint8_t count = 0;
  for (char *word = body; word;) {
    char *rest = cut(word, ' ');
    if (*word && count < WORDS_MAX) words[count++] = word;
    word = rest;
  }
  uint32_t id;
  Why why = WHY_NONE;
  uint8_t shown = 0;
  if (count < 2 || !number(words[0], id) || id || !is(words[1], ET_TEXT("prog"))) return;
  if (obey(words + 1, static_cast<uint8_t>(count - 1), now, why, shown) != OK) return;
  version_ = version;
  renewed_ = now;
  leased_ = true;
  state_due_ = true;
}

void Node::execute(uint32_t id, char **words, uint8_t count, uint32_t now) {
  Why why = WHY_NONE;
  uint8_t shown = 0;
  Status status = OK;
  if (!count) {
    status = OP;
  } else if (count > 1 && et_flash_compare_n(words[count - 1], ET_TEXT("ttl="), 4) == 0) {
    char *from = cut(words[count - 1] + 4, '@');
    uint32_t ms, begin;
    count--;
    if (!from || !number(words[count] + 4, ms) || !number(from, begin)) {
      status = RANGE;
      why = WHY_TTL;
    } else if (static_cast<int32_t>(now - begin) > 0 && now - begin > ms) {
      status = LATE;
    }
  }
  if (status == OK) status = obey(words, count, now, why, shown);
  if (status == OK) {
    renewed_ = now;
    leased_ = true;
  }
  const Answer done = {id, static_cast<uint8_t>(status), static_cast<uint8_t>(why), shown};
  answers_[answered_] = done;
  answered_ = static_cast<uint8_t>((answered_ + 1) % IDS);
  answer(done, false, now);
}

Status Node::obey(char **words, uint8_t count, uint32_t now, Why &why, uint8_t &shown) {
  const char *op = words[0];
  const uint8_t arguments = static_cast<uint8_t>(count - 1);
  uint32_t a, b;
  why = WHY_ARGS;
  shown = 0;
  if (is(op, ET_TEXT("hb"))) {
    shown = SHOWN_HEALTH;
    return arguments ? RANGE : OK;
  }
  if (is(op, ET_TEXT("prog"))) {
    shown = SHOWN_TX;
    return program(words + 1, arguments, now, why);
  }
  if (is(op, ET_TEXT("keep"))) {
    if (arguments) return RANGE;
    keep();
    shown = SHOWN_TX;
    return OK;
  }
  if (is(op, ET_TEXT("lease"))) {
    if (arguments != 1) return RANGE;
    why = WHY_LEASE;
    if (!number(words[1], a) || a < 1 || a > 86400) return RANGE;
    lease_ms_ = a * 1000;
    return OK;
  }
  if (is(op, ET_TEXT("get"))) {
    if (arguments > 1) return RANGE;
    uint16_t members = ALL;
    if (arguments) {
      why = WHY_PROP;
      const int8_t found = find(words[1], 0, SENSORS);
      if (found < 0) return RANGE;
      members = static_cast<uint16_t>(1u << found);
    }
    sample(members, ON_REQUEST, now);
    return OK;
  }
  if (is(op, ET_TEXT("safe"))) {
    if (arguments) return RANGE;
    fall_back(now);
    shown = SHOWN_TX;
    return OK;
  }
  if (is(op, ET_TEXT("resend"))) {
    if (arguments != 2) return RANGE;
    why = WHY_RESEND;
    if (!number(words[1], a) || !number(words[2], b) || a > b) return RANGE;
    if (static_cast<int32_t>(b - ring_.oldest()) < 0 || static_cast<int32_t>(a - sent_) >= 0) return RANGE;
    resend_ = a;
    resend_end_ = static_cast<int32_t>(b - sent_) < 0 ? b + 1 : sent_;
    return OK;
  }
  if (is(op, ET_TEXT("time"))) {
    if (arguments != 1) return RANGE;
    why = WHY_TIME;
    uint64_t unix_ms;
    if (!number64(words[1], unix_ms)) return RANGE;
    unix_ms_ = unix_ms;
    unix_at_ = now;
    return OK;
  }
  if (is(op, ET_TEXT("info"))) {
    if (arguments) return RANGE;
    state_due_ = true;
    shown = SHOWN_TX | SHOWN_HEALTH;
    return OK;
  }
  if (is(op, ET_TEXT("reset"))) {
    if (arguments) return RANGE;
    restart_due_ = true;
    return OK;
  }
  if (is(op, ET_TEXT("act"))) {
    if (arguments != 2) return RANGE;
    return act(words[1], words[2], why, shown);
  }
  if (is(op, ET_TEXT("period"))) {
    if (arguments != 1) return RANGE;
    shown = SHOWN_TX;
    return period(words[1], now, why);
  }
  if (is(op, ET_TEXT("thr"))) {
    if (arguments != 2) return RANGE;
    shown = SHOWN_TX;
    return threshold(words[1], words[2], now, why);
  }
#if ET_RADIO
  if (is(op, ET_TEXT("radio"))) {
    if (arguments != 1) return RANGE;
    why = WHY_RADIO;
    unescape(words[1]);
    return strlen(words[1]) <= 32 && port_.radio(words[1]) ? OK : RANGE;
  }
#else
  (void)unescape;
#endif
  return OP;
}

Status Node::act(const char *name, const char *text, Why &why, uint8_t &shown) {
  value_t value;
  const bool yes = is(text, ET_TEXT("true")), no = is(text, ET_TEXT("false"));
  why = WHY_VALUE;
  if (!yes && !no && !decimal(text, 0, value)) return RANGE;
  why = WHY_PROP;
  const int8_t found = find(name, SENSORS, PROPERTIES);
  if (found < 0) return RANGE;
  const Property &property = properties[found];
  why = WHY_VALUE;
  if ((et_flash_byte(&property.boolean) != 0) != (yes || no)) return RANGE;
  if (yes || no) {
    value = yes;
  } else if (!decimal(text, et_flash_byte(&property.places), value) || value < flash_value(&property.minimum) ||
             value > flash_value(&property.maximum)) {
    return RANGE;
  }
  acts_[found - SENSORS] = value;
  port_.actuate(static_cast<uint8_t>(found), value);
  shown = static_cast<uint8_t>(found + SHOWN_ACT);
  return OK;
}

Status Node::period(const char *text, uint32_t now, Why &why) {
  uint32_t ms;
  why = WHY_PERIOD;
  if (!number(text, ms) || ms < ET_PERIOD_MIN || ms > PERIOD_MAX) return RANGE;
  Transmission next = tx_;
  bool any = false;
  for (uint8_t i = 0; i < next.groups; i++) {
    Group &group = next.group[i];
    if (group.program == ON_REQUEST) continue;
    any = true;
    group.pmin = ms;
    if (group.program != ON_CHANGE || (group.pmax && group.pmax < ms)) group.pmax = ms;
  }
  why = WHY_PROGRAM;
  if (!any) return RANGE;
  adopt(next, now);
  return OK;
}

Status Node::threshold(const char *name, const char *text, uint32_t now, Why &why) {
  value_t value;
  why = WHY_ST;
  if (!decimal(text, 0, value)) return RANGE;
  why = WHY_PROP;
  const int8_t found = find(name, 0, SENSORS);
  if (found < 0) return RANGE;
  why = WHY_ST;
  if (!decimal(text, et_flash_byte(&properties[found].places), value) || value < 0) return RANGE;
  Transmission next = tx_;
  next.st[found] = value;
  adopt(next, now);
  return OK;
}

Status Node::thresholds(char *list, uint16_t members, value_t *into, Why wrong, Why &why) {
  why = wrong;
  while (list) {
    char *rest = cut(list, ',');
    char *text = cut(list, ':');
    if (!text) return RANGE;
    const int8_t found = find(list, 0, SENSORS);
    if (found < 0 || !(members >> found & 1)) return RANGE;
    value_t value;
    if (!decimal(text, et_flash_byte(&properties[found].places), value)) return RANGE;
    if (wrong == WHY_ST && value < 0) return RANGE;
    into[found] = value;
    list = rest;
  }
  return OK;
}

Status Node::program(char **words, uint8_t count, uint32_t now, Why &why) {
  why = WHY_PROGRAM;
  if (!count || strchr(words[0], '=')) return RANGE;
  Group group = {ALL, PROGRAMS, 0, 0};
  if (is(words[0], ET_TEXT("interval"))) group.program = INTERVAL;
  if (is(words[0], ET_TEXT("on-change"))) group.program = ON_CHANGE;
  if (is(words[0], ET_TEXT("on-request"))) group.program = ON_REQUEST;
  if (is(words[0], ET_TEXT("features"))) group.program = FEATURES;

  enum { ON, PERIOD, PMIN, PMAX, ST, GT, LT, TRIAL, SETTINGS };
  static const char names[SETTINGS][8] ET_FLASH = {"on", "period", "pmin", "pmax", "st", "gt", "lt", "trial"};
  static const uint8_t whys[SETTINGS] = {WHY_ON, WHY_PERIOD, WHY_PMIN, WHY_PMAX, WHY_ST, WHY_GT, WHY_LT, WHY_TRIAL};
  char *given[SETTINGS] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (uint8_t i = 1; i < count; i++) {
    why = WHY_ARGS;
    char *text = cut(words[i], '=');
    uint8_t key = SETTINGS;
    for (uint8_t at = 0; text && at < SETTINGS; at++)
      if (is(words[i], names[at])) key = at;
    if (key == SETTINGS || given[key]) return RANGE;
    given[key] = text;
    if (given[PERIOD] && (given[PMIN] || given[PMAX])) return RANGE;
    why = static_cast<Why>(whys[key]);
    const bool figure = key == PERIOD || key == PMIN || key == PMAX || key == TRIAL;
    uint32_t ignored;
    if (!*text || (figure && !number(text, ignored))) return RANGE;
  }
  why = WHY_PROGRAM;
  if (group.program == PROGRAMS || !(ET_PROGRAMS >> group.program & 1)) return RANGE;

  if (given[ON]) {
    group.members = 0;
    why = WHY_ON;
    for (char *name = given[ON]; name;) {
      char *rest = cut(name, ',');
      const int8_t found = find(name, 0, SENSORS);
      if (found < 0) return RANGE;
      group.members = static_cast<uint16_t>(group.members | 1u << found);
      name = rest;
    }
  }
  // They are known to be numbers.
  const bool steady = group.program != ON_CHANGE;
  const char *const pmin = given[PERIOD] ? given[PERIOD] : given[PMIN];
  const char *const pmax = given[PERIOD] ? given[PERIOD] : given[PMAX];
  group.pmin = steady ? ET_DEFAULT_PERIOD : ET_PERIOD_MIN;
  if (pmax) number(pmax, group.pmax);
  if (pmin) {
    number(pmin, group.pmin);
  } else if (steady && pmax) {
    group.pmin = group.pmax;
  }
  why = pmin && pmax && group.pmin == group.pmax ? WHY_PERIOD : WHY_PMIN;
  if (steady) group.pmax = group.pmin;
  if (group.program == ON_REQUEST) {
    group.pmin = group.pmax = 0;
  } else {
    if (group.pmin < ET_PERIOD_MIN || group.pmin > PERIOD_MAX) return RANGE;
    if (group.program == FEATURES && group.pmin < 2 * ET_SAMPLE_MS) return RANGE;
    why = WHY_PMAX;
    if (group.pmax > PERIOD_MAX || (group.pmax && group.pmax < group.pmin)) return RANGE;
  }
  why = WHY_TRIAL;
  uint32_t trial = 1;
  if (given[TRIAL]) number(given[TRIAL], trial);
  if (trial < 1 || trial > 86400) return RANGE;

  Transmission next = tx_;
  for (uint8_t i = 0; i != SENSORS; i++)
    if (group.members >> i & 1) next.st[i] = next.gt[i] = next.lt[i] = NONE;
  if (given[ST] && thresholds(given[ST], group.members, next.st, WHY_ST, why) != OK) return RANGE;
  if (given[GT] && thresholds(given[GT], group.members, next.gt, WHY_GT, why) != OK) return RANGE;
  if (given[LT] && thresholds(given[LT], group.members, next.lt, WHY_LT, why) != OK) return RANGE;

  if (group.members == ALL) {
    next.group[0] = group;
    next.groups = 1;
  } else {
    // Who is named leaves the group that it was in; a group without members is no more.
    uint8_t kept = 1;
    for (uint8_t i = 0; i < next.groups; i++) {
      next.group[i].members = static_cast<uint16_t>(next.group[i].members & ~group.members);
      if (i && next.group[i].members) next.group[kept++] = next.group[i];
    }
    why = WHY_ON;
    if (kept == GROUPS) return RANGE;
    next.group[kept] = group;
    next.groups = static_cast<uint8_t>(kept + 1);
  }
  if (given[TRIAL]) {
    if (!trial_) before_ = tx_;
    trial_ = true;
    trial_from_ = now;
    trial_ms_ = trial * 1000;
  } else {
    trial_ = false;
  }
  adopt(next, now);
  return OK;
}

}  // namespace et
