#include "et_core.h"

namespace et {

const Property properties[PROPERTIES ? PROPERTIES : 1] ET_FLASH = ET_PROPERTIES;

namespace {

// Where the permanent memory has what. Eight places take turns for the boot counter and four for
// the transmission, so that no cell wears out early and a torn write loses nothing.
const uint16_t BOOT_AT = 0;
const uint8_t BOOT_SLOTS = 8;
const uint16_t KEPT_AT = 64;
const uint8_t KEPT_SLOTS = 4;
const uint8_t QUICK_BOOTS_MAX = 3;
const uint32_t SETTLED_MS = 60000;
const uint32_t OVERFLOW_EVERY_MS = 10000;

struct BootSlot {
  uint32_t boot;
  uint8_t quick, mark;
  uint16_t crc;
};

struct KeptHead {
  uint16_t generation, layout, crc, spare;
};

uint16_t kept_slot(uint16_t generation) {
  const uint16_t len = static_cast<uint16_t>(sizeof(KeptHead) + sizeof(Transmission));
  return static_cast<uint16_t>(KEPT_AT + (generation % KEPT_SLOTS) * len);
}

bool same(const Group &a, const Group &b) {
  return a.members == b.members && a.program == b.program && a.pmin == b.pmin && a.pmax == b.pmax;
}

// A short stand-in for a transmission, to see whether it is the one that is kept.
uint16_t fingerprint(const Transmission &of) {
  uint16_t crc = crc16(0xFFFF, of.groups);
  for (uint8_t i = 0; i < of.groups; i++) {
    const Group &group = of.group[i];
    const uint32_t parts[4] = {group.members, group.program, group.pmin, group.pmax};
    for (uint8_t at = 0; at < 4; at++)
      for (uint8_t shift = 0; shift < 32; shift = static_cast<uint8_t>(shift + 8))
        crc = crc16(crc, static_cast<uint8_t>(parts[at] >> shift));
  }
  const value_t *const lists[3] = {of.st, of.gt, of.lt};
  for (uint8_t list = 0; list < 3; list++)
    for (uint8_t i = 0; i != SENSORS; i++)
      for (uint8_t shift = 0; shift < 32; shift = static_cast<uint8_t>(shift + 8))
        crc = crc16(crc, static_cast<uint8_t>(static_cast<uint32_t>(lists[list][i]) >> shift));
  return crc;
}

ET_ALONE void own(Transmission &to) {
  memset(&to, 0, sizeof to);
  to.groups = 1;
  to.group[0].members = ALL;
  to.group[0].program = ET_DEFAULT_PROGRAM;
  to.group[0].pmin = ET_DEFAULT_PMIN;
  to.group[0].pmax = ET_DEFAULT_PMAX;
  static const value_t st[SENSOR_SLOTS] ET_FLASH = ET_DEFAULT_ST;
  static const value_t gt[SENSOR_SLOTS] ET_FLASH = ET_DEFAULT_GT;
  static const value_t lt[SENSOR_SLOTS] ET_FLASH = ET_DEFAULT_LT;
  et_flash_copy(to.st, st, sizeof st);
  et_flash_copy(to.gt, gt, sizeof gt);
  et_flash_copy(to.lt, lt, sizeof lt);
}

}  // namespace

enum Event : uint8_t { EV_LEASE = 1, EV_OVERFLOW = 2, EV_FAULT = 4, EV_REVERTED = 8, EV_SAFE = 16 };

Node::Node(Port &port)
    : port_(port), pending_(0), silent_(0), answered_(0), cause_(CAUSE_POWER), events_(0), fault_(0), leased_(true),
      kept_(true), trial_(false), state_due_(true), restart_due_(false), settled_(false), safe_why_(ET_TEXT("edge")),
      lease_ms_(ET_LEASE_MS), renewed_(0), trial_from_(0), trial_ms_(0), boot_(0), lost_(0), version_(0), quick_(0),
      sent_(0), resend_(0), resend_end_(0), unix_ms_(0), unix_at_(0), overflow_at_(0), generation_(0), kept_crc_(0) {
  for (uint8_t i = 0; i < IDS; i++) answers_[i].id = 0;
  for (uint8_t i = 0; i != SENSORS; i++) last_[i] = NONE;
  for (uint8_t i = 0; i < GROUPS; i++) {
    due_[i] = sent_at_[i] = samples_[i] = 0;
  }
}

void Node::start(uint32_t now, Cause cause) {
  cause_ = cause;
  count_boot();
  if (!load_kept(tx_)) own(tx_);
  kept_crc_ = fingerprint(tx_);
  if (quick_ > QUICK_BOOTS_MAX) {
    own(tx_);
    safe_why_ = ET_TEXT("resets");
    events_ |= EV_SAFE;
  }
  renewed_ = now;
  look_if_kept();
  for (uint8_t i = 0; i < GROUPS; i++) {
    due_[i] = now;
    sent_at_[i] = now - tx_.group[i].pmin;
    samples_[i] = 0;
    if (i < tx_.groups && tx_.group[i].program == FEATURES) sent_at_[i] = now;
  }
  for (uint8_t i = SENSORS; i < PROPERTIES; i++) {
    const value_t safe = flash_value(&properties[i].safe);
    acts_[i - SENSORS] = safe == NONE ? 0 : safe;
    port_.actuate(i, acts_[i - SENSORS]);
  }
}

void Node::count_boot() {
  for (uint8_t i = 0; i < BOOT_SLOTS; i++) {
    BootSlot slot;
    port_.load(static_cast<uint16_t>(BOOT_AT + i * sizeof slot), &slot, sizeof slot);
    if (slot.mark != 0xE7 || slot.crc != crc16(&slot, 6) || slot.boot < boot_) continue;
    boot_ = slot.boot;
    quick_ = slot.quick;
  }
  boot_++;
  if (quick_ < 0xFF) quick_++;
  BootSlot slot = {boot_, quick_, 0xE7, 0};
  slot.crc = crc16(&slot, 6);
  port_.save(static_cast<uint16_t>(BOOT_AT + (boot_ % BOOT_SLOTS) * sizeof slot), &slot, sizeof slot);
}

// Into `to` the newest that is whole; the heads are looked at first, so that it is read once.
bool Node::load_kept(Transmission &to) {
  bool found = false;
  for (uint8_t i = 0; i < KEPT_SLOTS; i++) {
    KeptHead head;
    const uint16_t at = kept_slot(i);
    port_.load(at, &head, sizeof head);
    if (head.layout != ET_LAYOUT || head.generation % KEPT_SLOTS != i) continue;
    if (found && static_cast<int16_t>(head.generation - generation_) < 0) continue;
    uint16_t crc = 0xFFFF;
    for (uint16_t byte = 0; byte < sizeof to; byte++) {
      uint8_t value;
      port_.load(static_cast<uint16_t>(at + sizeof head + byte), &value, 1);
      crc = crc16(crc, value);
    }
    if (head.crc != static_cast<uint16_t>(crc ^ head.generation)) continue;
    generation_ = head.generation;
    found = true;
  }
  if (!found) return false;
  port_.load(static_cast<uint16_t>(kept_slot(generation_) + sizeof(KeptHead)), &to, sizeof to);
  return to.groups != 0 && to.groups <= GROUPS;
}

void Node::look_if_kept() { kept_ = fingerprint(tx_) == kept_crc_; }

void Node::keep() {
  trial_ = false;
  look_if_kept();
  if (kept_) return;  // the memory wears out by writing
  generation_++;
  const uint16_t crc = static_cast<uint16_t>(crc16(&tx_, sizeof tx_) ^ generation_);
  const KeptHead head = {generation_, ET_LAYOUT, crc, 0};
  const uint16_t at = kept_slot(generation_);
  port_.save(static_cast<uint16_t>(at + sizeof head), &tx_, sizeof tx_);
  port_.save(at, &head, sizeof head);
  kept_crc_ = fingerprint(tx_);
  kept_ = true;
}

// A group that is another than before begins anew.
void Node::settle(const Group *is, uint8_t groups, const Group *was, uint8_t were, uint32_t now) {
  for (uint8_t i = 0; i < groups; i++) {
    if (i < were && same(is[i], was[i])) continue;
    due_[i] = is[i].program == INTERVAL ? now + is[i].pmin : now;
    sent_at_[i] = now;
    samples_[i] = 0;
  }
  pending_ = 0;
}

void Node::adopt(const Transmission &next, uint32_t now) {
  settle(next.group, next.groups, tx_.group, tx_.groups, now);
  tx_ = next;
  look_if_kept();
}

void Node::fall_back(uint32_t now) {
  Group was[GROUPS];
  memcpy(was, tx_.group, sizeof was);
  const uint8_t were = tx_.groups;
  own(tx_);
  settle(tx_.group, tx_.groups, was, were, now);
  look_if_kept();
  trial_ = false;
  for (uint8_t i = SENSORS; i < PROPERTIES; i++) {
    const value_t safe = flash_value(&properties[i].safe);
    if (safe == NONE) continue;
    acts_[i - SENSORS] = safe;
    port_.actuate(i, safe);
  }
}

void Node::connected() {
  sent_ = port_.acknowledged(sent_);
  state_due_ = true;
}

bool Node::idle() const {
  for (uint8_t i = 0; i < tx_.groups; i++)
    if (tx_.group[i].program == FEATURES && tx_.group[i].members) return false;
  return sent_ == ring_.next() && !events_ && !state_due_;
}

void Node::poll(uint32_t now) {
  if (leased_ && now - renewed_ >= lease_ms_) {
    leased_ = false;
    fall_back(now);
    events_ |= EV_LEASE;
  }
  if (trial_ && now - trial_from_ >= trial_ms_) {
    trial_ = false;
    adopt(before_, now);
    events_ |= EV_REVERTED;
  }
  if (!settled_ && now >= SETTLED_MS) {
    settled_ = true;
    BootSlot slot = {boot_, 0, 0xE7, 0};
    slot.crc = crc16(&slot, 6);
    port_.save(static_cast<uint16_t>(BOOT_AT + (boot_ % BOOT_SLOTS) * sizeof slot), &slot, sizeof slot);
  }
  if (restart_due_) {
    restart_due_ = false;
    port_.restart();
  }
  if (state_due_ && port_.ready(STATE)) {
    state_due_ = false;
    write_state(now);
  }
  if (events_ && port_.ready(EVENT)) {
    for (uint8_t bit = 1; bit; bit = static_cast<uint8_t>(bit << 1)) {
      if (!(events_ & bit)) continue;
      if (bit == EV_OVERFLOW && overflow_at_ && now - overflow_at_ < OVERFLOW_EVERY_MS) continue;
      events_ = static_cast<uint8_t>(events_ & ~bit);
      if (bit == EV_OVERFLOW) overflow_at_ = now | 1;
      write_event(bit, now);
    }
  }
  for (uint8_t i = 0; i < tx_.groups; i++) run(i, now);
  forward(now);
}

// ---- messages ---------------------------------------------------------------------------------

static const char *program_word(uint8_t program) {
  switch (program) {
    case INTERVAL: return ET_TEXT("interval");
    case ON_CHANGE: return ET_TEXT("on-change");
    case ON_REQUEST: return ET_TEXT("on-request");
    default: return ET_TEXT("features");
  }
}

// As in commands: its own name where that is enough, else feature/property.
void Node::write_name(Writer &writer, uint8_t property) {
  if (et_flash_byte(&properties[property].nested)) {
    writer.text(properties[property].feature);
    writer.raw('/');
  }
  writer.text(properties[property].name);
}

void Node::write_key(Writer &writer, uint8_t property) {
  writer.begin_key();
  write_name(writer, property);
  writer.end_key();
}

void Node::write_thresholds(Writer &writer, const char *name, const value_t *list, uint16_t members) {
  bool any = false;
  for (uint8_t i = 0; i != SENSORS; i++) {
    if (list[i] == NONE || !(members >> i & 1)) continue;
    if (!any) writer.object(name);
    any = true;
    write_key(writer, i);
    writer.put_decimal(list[i], et_flash_byte(&properties[i].places));
  }
  if (any) writer.close();
}

void Node::write_group(Writer &writer, const Group &group) {
  writer.open();
  writer.member_word(ET_TEXT("program"), program_word(group.program));
  if (group.program != ON_REQUEST) {
    writer.member(ET_TEXT("pmin"), group.pmin);
    if (group.pmax) writer.member(ET_TEXT("pmax"), group.pmax);
  }
  write_thresholds(writer, ET_TEXT("st"), tx_.st, group.members);
  write_thresholds(writer, ET_TEXT("gt"), tx_.gt, group.members);
  write_thresholds(writer, ET_TEXT("lt"), tx_.lt, group.members);
}

void Node::write_transmission(Writer &writer) {
  writer.key(ET_TEXT("tx"));
  write_group(writer, tx_.group[0]);
  writer.member(ET_TEXT("kept"), kept_);
  if (tx_.groups > 1) {
    writer.object(ET_TEXT("groups"));
    for (uint8_t i = 1; i < tx_.groups; i++) {
      if (i > 1) writer.raw(',');
      writer.raw('"');
      bool more = false;
      for (uint8_t p = 0; p != SENSORS; p++) {
        if (!(tx_.group[i].members >> p & 1)) continue;
        if (more) writer.raw(',');
        more = true;
        write_name(writer, p);
      }
      writer.raw('"');
      writer.raw(':');
      write_group(writer, tx_.group[i]);
      writer.close();
    }
    writer.close();
  }
  writer.close();
}

void Node::write_health(Writer &writer, uint32_t now) {
#if ET_RSSI
  const int16_t rssi = port_.rssi();
  if (rssi < 0) {
    writer.key(ET_TEXT("rssi"));
    writer.put_decimal(rssi, 0);
  }
#endif
#ifdef ET_BATTERY
  const uint8_t battery = port_.battery(now);
  if (battery <= 100) writer.member(ET_TEXT("battery"), battery);
#endif
  (void)writer;
  (void)now;
}

static void head(Writer &writer, const char *kind) {
  writer.open();
  writer.member_word(ET_TEXT("k"), kind);
}

void Node::write_state(uint32_t now) {
  port_.begin(STATE, 0);
  Writer writer(port_);
  head(writer, ET_TEXT("b"));
  writer.member(ET_TEXT("up"), 1);
  writer.member(ET_TEXT("boot"), boot_);
  writer.member(ET_TEXT("ms"), now);
  writer.member_word(ET_TEXT("build"), ET_TEXT(ET_BUILD));
  writer.member_word(ET_TEXT("profile"), ET_TEXT(ET_PROFILE));
  writer.member_word(ET_TEXT("board"), ET_TEXT(ET_BOARD));
  const char *cause = cause_ == CAUSE_WATCHDOG   ? ET_TEXT("wdt")
                      : cause_ == CAUSE_RESET ? ET_TEXT("ext")
                      : cause_ == CAUSE_BROWNOUT ? ET_TEXT("brown")
                                           : ET_TEXT("power");
  writer.member_word(ET_TEXT("cause"), cause);
  writer.member(ET_TEXT("lost"), lost_);
  writer.member(ET_TEXT("lease"), lease_ms_ / 1000);
  write_health(writer, now);
  write_transmission(writer);
  writer.member(ET_TEXT("version"), version_);
  writer.close();
  port_.end();
}

void Node::write_event(uint8_t event, uint32_t now) {
  port_.begin(EVENT, 0);
  Writer writer(port_);
  head(writer, ET_TEXT("x"));
  writer.member(ET_TEXT("boot"), boot_);
  writer.member(ET_TEXT("ms"), now);
  switch (event) {
    case EV_LEASE: writer.member_word(ET_TEXT("ev"), ET_TEXT("lease")); break;
    case EV_OVERFLOW:
      writer.member_word(ET_TEXT("ev"), ET_TEXT("overflow"));
      writer.member(ET_TEXT("lost"), lost_);
      break;
    case EV_FAULT:
      writer.member_word(ET_TEXT("ev"), ET_TEXT("fault"));
      writer.key(ET_TEXT("why"));
      writer.raw('"');
      write_name(writer, fault_);
      writer.raw('"');
      break;
    case EV_REVERTED: writer.member_word(ET_TEXT("ev"), ET_TEXT("reverted")); break;
    default:
      writer.member_word(ET_TEXT("ev"), ET_TEXT("safe"));
      writer.member_word(ET_TEXT("why"), safe_why_);
  }
  if (event != EV_OVERFLOW && event != EV_FAULT) write_transmission(writer);
  writer.close();
  port_.end();
}

void Node::answer(const Answer &what, bool again, uint32_t now) {
  static const char words[][7] ET_FLASH = {"ok", "range", "op", "crc", "busy", "late", "denied"};
  static const char whys[][8] ET_FLASH = {"",     "id",   "length", "op",    "args",  "ttl",  "program", "on",
                                          "period", "pmin", "pmax",   "st",    "gt",    "lt",   "trial",   "lease",
                                          "prop", "value", "resend", "time", "radio"};
  port_.begin(ACK, 0);
  Writer writer(port_);
  head(writer, ET_TEXT("a"));
  writer.member(ET_TEXT("boot"), boot_);
  writer.member(ET_TEXT("ms"), now);
  writer.member(ET_TEXT("id"), what.id);
  writer.member_word(ET_TEXT("st"), words[what.status]);
  if (again) writer.member(ET_TEXT("dup"), 1);
  if (what.status == RANGE) writer.member_word(ET_TEXT("why"), whys[what.why]);
  if (what.status == OK) {
    writer.member(ET_TEXT("lease"), lease_ms_ / 1000);
    if (trial_) writer.member(ET_TEXT("trial"), (trial_ms_ - (now - trial_from_) + 999) / 1000);
    const bool act = what.shown >= SHOWN_ACT;
    if (!act && what.shown & SHOWN_HEALTH) write_health(writer, now);
    if (!act && what.shown & SHOWN_TX) write_transmission(writer);
    if (act) {
      const uint8_t property = static_cast<uint8_t>(what.shown - SHOWN_ACT);
      const value_t value = acts_[property - SENSORS];
      writer.object(ET_TEXT("act"));
      write_key(writer, property);
      if (et_flash_byte(&properties[property].boolean)) {
        writer.text(value ? ET_TEXT("true") : ET_TEXT("false"));
      } else {
        writer.put_decimal(value, et_flash_byte(&properties[property].places));
      }
      writer.close();
    }
  }
  writer.close();
  port_.end();
}

// ---- programs ---------------------------------------------------------------------------------

void Node::run(uint8_t index, uint32_t now) {
  const Group &group = tx_.group[index];
  if (!group.members || group.program == ON_REQUEST) return;
  if (static_cast<int32_t>(now - due_[index]) < 0) return;
  // Steps are kept, unless a whole one was missed.
  const uint32_t step = group.program == INTERVAL ? group.pmin : ET_SAMPLE_MS;
  due_[index] += step;
  if (static_cast<int32_t>(now - due_[index]) >= 0) due_[index] = now + step;
  if (group.program == INTERVAL) {
    sent_at_[index] = now;
    sample(group.members, INTERVAL, now);
    return;
  }
  if (group.program == FEATURES) {
    accumulate(index, now);
    if (now - sent_at_[index] >= group.pmin) send_features(index, now);
    return;
  }
  bool any = true;
  for (uint8_t i = 0; i != SENSORS; i++)
    if (group.members >> i & 1 && (tx_.st[i] != NONE || tx_.gt[i] != NONE || tx_.lt[i] != NONE)) any = false;
  for (uint8_t i = 0; i != SENSORS; i++) {
    if (!(group.members >> i & 1)) continue;
    const value_t value = measure(i, now);
    if (value != NONE && changed(i, value, any)) pending_ = static_cast<uint16_t>(pending_ | 1u << i);
  }
  const uint32_t silence = now - sent_at_[index];
  uint16_t which = pending_ & group.members;
  if (which && silence < group.pmin) which = 0;
  if (group.pmax && silence >= group.pmax) which = group.members;
  if (!which) return;
  sent_at_[index] = now;
  sample(which, ON_CHANGE, now);
}

bool Node::changed(uint8_t i, value_t value, bool any) const {
  const value_t last = last_[i];
  if (last == NONE) return true;
  if (any || et_flash_byte(&properties[i].boolean)) return value != last;
  const uint32_t difference = value > last ? static_cast<uint32_t>(value) - static_cast<uint32_t>(last)
                                           : static_cast<uint32_t>(last) - static_cast<uint32_t>(value);
  if (tx_.st[i] != NONE && difference && difference >= static_cast<uint32_t>(tx_.st[i])) return true;
  if (tx_.gt[i] != NONE && (last > tx_.gt[i]) != (value > tx_.gt[i])) return true;
  return tx_.lt[i] != NONE && (last < tx_.lt[i]) != (value < tx_.lt[i]);
}

// A value within the property's range; a sensor that gives none is watched.
value_t Node::measure(uint8_t i, uint32_t now) {
  value_t value = port_.read(i, now);
  if (value < flash_value(&properties[i].minimum) || value > flash_value(&properties[i].maximum)) value = NONE;
  note(i, value);
  return value;
}

void Node::note(uint8_t i, value_t value) {
  const uint16_t bit = static_cast<uint16_t>(1u << i);
  if (value != NONE) {
    silent_ = static_cast<uint16_t>(silent_ & ~bit);
  } else if (!(silent_ & bit)) {
    silent_ = static_cast<uint16_t>(silent_ | bit);
    fault_ = i;
    events_ |= EV_FAULT;
  }
}

void Node::sample(uint16_t members, uint8_t program, uint32_t now) {
  uint8_t record[14 + 5 * SENSORS];
  value_t values[SENSOR_SLOTS];
  uint16_t mask = 0;
  for (uint8_t i = 0; i != SENSORS; i++) {
    if (!(members >> i & 1)) continue;
    values[i] = measure(i, now);
    pending_ = static_cast<uint16_t>(pending_ & ~(1u << i));
    if (values[i] == NONE) continue;
    mask = static_cast<uint16_t>(mask | 1u << i);
    last_[i] = values[i];
  }
  if (!mask) return;
  Packer packer(record);
  packer.put(now);
  packer.put(program);
  packer.put(mask);
  for (uint8_t i = 0; i != SENSORS; i++)
    if (mask >> i & 1) packer.put_signed(values[i]);
  push(record, packer.len());
}

void Node::accumulate(uint8_t index, uint32_t now) {
  const bool begin = samples_[index] == 0;
  if (samples_[index] >= 4096) return;  // keeps the sums of squares within 64 bits
  samples_[index]++;
  for (uint8_t i = 0; i != SENSORS; i++) {
    if (!(tx_.group[index].members >> i & 1)) continue;
    Sums &sums = sums_[i];
    const value_t value = measure(i, now);
    if (begin) sums.first = NONE;
    if (value == NONE) continue;
    if (sums.first == NONE) {
      sums.first = sums.least = sums.most = value;
      sums.sum = 0;
      sums.squares = 0;
      sums.count = 0;
    }
    // From the first value on, so that the sums stay small.
    int32_t step = value - sums.first;
    const int32_t limit = 0x7FFFF;
    if (step > limit) step = limit;
    if (step < -limit) step = -limit;
    sums.count++;
    sums.sum += step;
    sums.squares += static_cast<uint64_t>(static_cast<int64_t>(step) * step);
    if (value < sums.least) sums.least = value;
    if (value > sums.most) sums.most = value;
  }
}

// Rounded half away from zero.
static int32_t divide(int64_t number, int64_t by) {
  return static_cast<int32_t>(number >= 0 ? (number + by / 2) / by : -((-number + by / 2) / by));
}

void Node::send_features(uint8_t index, uint32_t now) {
  uint8_t record[14 + 20 * SENSORS];
  const uint32_t n = samples_[index];
  sent_at_[index] += tx_.group[index].pmin;
  if (now - sent_at_[index] >= tx_.group[index].pmin) sent_at_[index] = now;
  samples_[index] = 0;
  uint16_t mask = 0;
  for (uint8_t i = 0; i != SENSORS; i++)
    if (tx_.group[index].members >> i & 1 && sums_[i].first != NONE) mask = static_cast<uint16_t>(mask | 1u << i);
  if (!n || !mask) return;
  Packer packer(record);
  packer.put(now);
  packer.put(FEATURES);
  packer.put(mask);
  packer.put(n);
  for (uint8_t i = 0; i != SENSORS; i++) {
    if (!(mask >> i & 1)) continue;
    const Sums &sums = sums_[i];
    const int64_t count = sums.count;
    const int64_t sum = sums.sum;
    // sum((x - mean)^2) / n, in 10^-(2*places); then to 10^-places.
    uint64_t spread = (sums.squares - static_cast<uint64_t>(sum * sum / count)) / static_cast<uint64_t>(count);
    uint8_t places = et_flash_byte(&properties[i].places);
    uint32_t unit = 1;
    while (places--) unit *= 10;
    spread = (spread + unit / 2) / unit;
    last_[i] = sums.first + divide(sum, count);
    packer.put_signed(sums.least);
    packer.put_signed(sums.most);
    packer.put_signed(last_[i]);
    packer.put_signed(spread > 0x7FFFFFFF ? 0x7FFFFFFF : static_cast<int32_t>(spread));
  }
  push(record, packer.len());
}

void Node::push(const uint8_t *record, uint8_t len) {
  const uint32_t safe = port_.acknowledged(sent_);
  ring_.push(record, len, [this, safe](uint32_t seq) {
    if (static_cast<int32_t>(seq - safe) < 0) return;
    lost_++;
    events_ |= EV_OVERFLOW;
  });
}

// Sends what waits, the oldest first, and then what the edge asked for again.
void Node::forward(uint32_t now) {
  for (uint8_t turns = 0; turns < 8 && port_.ready(SAMPLE); turns++) {
    if (static_cast<int32_t>(sent_ - ring_.oldest()) < 0) sent_ = ring_.oldest();
    if (sent_ != ring_.next()) {
      write_record(sent_, false, now);
      sent_++;
      continue;
    }
    if (static_cast<int32_t>(resend_ - ring_.oldest()) < 0) {
      resend_ = static_cast<int32_t>(resend_end_ - ring_.oldest()) < 0 ? resend_end_ : ring_.oldest();
    }
    if (resend_ == resend_end_) return;
    write_record(resend_, true, now);
    resend_++;
  }
}

void Node::write_record(uint32_t seq, bool again, uint32_t now) {
  uint8_t record[14 + 20 * SENSORS];
  if (!ring_.copy(seq, record)) return;
  Unpacker unpacker(record);
  const uint32_t ms = unpacker.get();
  const uint8_t program = static_cast<uint8_t>(unpacker.get());
  const uint16_t mask = static_cast<uint16_t>(unpacker.get());
  const bool features = program == FEATURES;
  const bool old = again || now - ms > ET_OLD_MS;
  port_.begin(features ? FEATURE : SAMPLE, seq);
  Writer writer(port_);
  head(writer, features ? ET_TEXT("f") : ET_TEXT("s"));
  writer.member(ET_TEXT("boot"), boot_);
  writer.member(ET_TEXT("seq"), seq);
  writer.member(ET_TEXT("ms"), ms);
  writer.member_word(ET_TEXT("program"), program_word(program));
  if (old) {
    writer.member(ET_TEXT("old"), 1);
    // Its arrival says nothing about when it was measured.
    if (unix_ms_) {
      writer.key(ET_TEXT("time"));
      writer.put_long(unix_ms_ + static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(ms - unix_at_))));
    }
  }
  if (features) writer.member(ET_TEXT("n"), unpacker.get());
  const char *open = 0;  // the feature whose object is open
  for (uint8_t i = 0; i != SENSORS; i++) {
    if (!(mask >> i & 1)) continue;
    const char *feature = et_flash_byte(&properties[i].nested) ? properties[i].feature : 0;
    char of_this[ET_NAME_LEN], of_open[ET_NAME_LEN] = "";
    if (open) et_flash_copy(of_open, open, ET_NAME_LEN);
    bool same_feature = !open && !feature;
    if (open && feature) {
      et_flash_copy(of_this, feature, ET_NAME_LEN);
      same_feature = !strcmp(of_this, of_open);
    }
    if (!same_feature) {
      if (open) writer.close();
      open = feature;
      if (feature) writer.object(feature);
    }
    const uint8_t places = et_flash_byte(&properties[i].places);
    writer.key(properties[i].name);
    if (features) {
      writer.open();
      writer.key(ET_TEXT("min"));
      writer.put_decimal(unpacker.get_signed(), places);
      writer.key(ET_TEXT("max"));
      writer.put_decimal(unpacker.get_signed(), places);
      writer.key(ET_TEXT("mean"));
      writer.put_decimal(unpacker.get_signed(), places);
      writer.key(ET_TEXT("var"));
      writer.put_decimal(unpacker.get_signed(), places);
      writer.close();
    } else if (et_flash_byte(&properties[i].boolean)) {
      writer.text(unpacker.get_signed() ? ET_TEXT("true") : ET_TEXT("false"));
    } else {
      writer.put_decimal(unpacker.get_signed(), places);
    }
  }
  if (open) writer.close();
  writer.close();
  port_.end();
}

}  // namespace et
