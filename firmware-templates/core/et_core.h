// A node: transmission programs, commands, lease, trial, ring. Plain C++11 without any call of a
// board; clock, sensors, memory and link come through `Port`.
//
// Programs: `interval` sends every period; `on-change` when a value differs from the last one sent
// by `st`, or crosses `gt` or `lt` since then, not before `pmin` and not later than `pmax`;
// `on-request` when asked; `features` sends minimum, maximum, mean and variance of each period.
#pragma once
#include "et_config.h"
#include "et_line.h"
#include "et_ring.h"

namespace et {

enum Program : uint8_t { INTERVAL, ON_CHANGE, ON_REQUEST, FEATURES, PROGRAMS };
enum Status : uint8_t { OK, RANGE, OP, CRC, BUSY, LATE, DENIED };
enum Why : uint8_t {
  WHY_NONE, WHY_ID, WHY_LENGTH, WHY_OP, WHY_ARGS, WHY_TTL, WHY_PROGRAM, WHY_ON, WHY_PERIOD, WHY_PMIN,
  WHY_PMAX, WHY_ST, WHY_GT, WHY_LT, WHY_TRIAL, WHY_LEASE, WHY_PROP, WHY_VALUE, WHY_RESEND, WHY_TIME,
  WHY_RADIO
};
// What an answer shows: the transmission, health, both; from SHOWN_ACT on, an actuator.
enum Shown : uint8_t { SHOWN_TX = 1, SHOWN_HEALTH = 2, SHOWN_ACT = 4 };
// The topic's leaf: data, feat, ack, event, state.
enum Kind : uint8_t { SAMPLE, FEATURE, ACK, EVENT, STATE };
enum Cause : uint8_t { CAUSE_POWER, CAUSE_RESET, CAUSE_WATCHDOG, CAUSE_BROWNOUT };

const uint8_t SENSORS = ET_SENSORS;                  // properties that are measured come first
const uint8_t SENSOR_SLOTS = ET_SENSORS ? ET_SENSORS : 1;  // no array is empty
const uint8_t PROPERTIES = ET_SENSORS + ET_ACTUATORS;
const uint8_t GROUPS = ET_GROUPS;
const uint16_t ALL = static_cast<uint16_t>((1UL << ET_SENSORS) - 1);
const uint32_t PERIOD_MAX = 86400000UL;              // a day
const uint8_t BODY_MAX = 160;
const uint8_t IDS = 4;                               // answers that are kept

struct Property {
  char name[ET_NAME_LEN];
  char feature[ET_NAME_LEN];
  uint8_t nested;              // the name alone is ambiguous: its feature stands beside it
  value_t minimum, maximum;    // in 10^-places of the unit
  uint8_t places;
  uint8_t boolean;
  value_t safe;                // an actuator's value when the edge is lost; NONE: as it is
};
extern const Property properties[PROPERTIES ? PROPERTIES : 1] ET_FLASH;

// How some properties are sent.
struct Group {
  uint16_t members;
  uint8_t program;
  uint32_t pmin, pmax;         // ms; pmax 0: no limit
};

// How all properties are sent. The first group has those that are in no other.
struct Transmission {
  Group group[GROUPS];
  uint8_t groups;
  value_t st[SENSOR_SLOTS], gt[SENSOR_SLOTS], lt[SENSOR_SLOTS];
};

// What a node runs on. All of it returns at once, or feeds the watchdog while it waits.
struct Port : Sink {
  // A sensor's value, at most as old as the sensor's own period; NONE if it does not answer.
  virtual value_t read(uint8_t property, uint32_t now) = 0;
  virtual void actuate(uint8_t property, value_t value) = 0;
  // Whether a message would leave now. A reading is only begun if so.
  virtual bool ready(Kind kind) = 0;
  virtual void begin(Kind kind, uint32_t seq) = 0;
  virtual void end() = 0;
  // Readings below this number are safe with the edge.
  virtual uint32_t acknowledged(uint32_t sent) = 0;
  virtual void load(uint16_t at, void *to, uint8_t len) = 0;
  virtual void save(uint16_t at, const void *from, uint8_t len) = 0;
  virtual void restart() = 0;
  // Joins another network that the node knows; false if it does not know it.
  virtual bool radio(const char *ssid) = 0;
#if ET_RSSI
  // The received signal, dBm; 0: none.
  virtual int16_t rssi() = 0;
#endif
#ifdef ET_BATTERY
  // What is left in the battery, percent; above 100: not known.
  virtual uint8_t battery(uint32_t now) = 0;
#endif

 protected:
  ~Port() {}
};

class Node {
 public:
  explicit Node(Port &port);

  // Reads what is kept and counts the boot.
  ET_ALONE void start(uint32_t now, Cause cause);
  // Does what is due. Call it at least once a millisecond's worth of loop.
  void poll(uint32_t now);
  // Takes a command. `body` ends with 0 and is changed. `intact`: its checksum was right.
  ET_ALONE void command(char *body, uint32_t now, bool intact = true);
  // Takes the retained desired transmission, a command with the id 0.
  ET_ALONE void desired(uint32_t version, char *body, uint32_t now);
  // The link is new: what was not acknowledged is sent again, after the state.
  void connected();

  uint32_t boot() const { return boot_; }
  uint32_t lost() const { return lost_; }
  // Whether it only waits: no program samples all the time.
  bool idle() const;

 private:
  struct Answer { uint32_t id; uint8_t status, why, shown; };
  struct Sums { value_t first, least, most; int64_t sum; uint64_t squares; uint16_t count; };

  // et_core.cpp
  ET_ALONE void run(uint8_t group, uint32_t now);
  ET_ALONE void sample(uint16_t members, uint8_t program, uint32_t now);
  void note(uint8_t property, value_t value);
  bool changed(uint8_t property, value_t value, bool any) const;
  ET_ALONE void accumulate(uint8_t group, uint32_t now);
  ET_ALONE void send_features(uint8_t group, uint32_t now);
  ET_ALONE void push(const uint8_t *record, uint8_t len);
  void forward(uint32_t now);
  ET_ALONE void write_record(uint32_t seq, bool old, uint32_t now);

  // et_cmd.cpp
  ET_ALONE Status obey(char **words, uint8_t count, uint32_t now, Why &why, uint8_t &shown);
  ET_ALONE Status program(char **words, uint8_t count, uint32_t now, Why &why);
  ET_ALONE Status period(const char *text, uint32_t now, Why &why);
  ET_ALONE Status threshold(const char *name, const char *text, uint32_t now, Why &why);
  ET_ALONE Status act(const char *name, const char *text, Why &why, uint8_t &shown);
  ET_ALONE void execute(uint32_t id, char **words, uint8_t count, uint32_t now);
  ET_ALONE Status thresholds(char *list, uint16_t members, value_t *into, Why wrong, Why &why);
  int8_t find(const char *name, uint8_t from, uint8_t to) const;
  ET_ALONE bool decimal(const char *text, uint8_t places, value_t &value) const;

  void write_health(Writer &writer, uint32_t now);
  ET_ALONE void answer(const Answer &what, bool again, uint32_t now);
  void write_transmission(Writer &writer);
  void write_group(Writer &writer, const Group &group);
  void write_thresholds(Writer &writer, const char *name, const value_t *list, uint16_t members);
  void write_name(Writer &writer, uint8_t property);
  void write_key(Writer &writer, uint8_t property);
  ET_ALONE value_t measure(uint8_t property, uint32_t now);
  ET_ALONE void write_state(uint32_t now);
  ET_ALONE void write_event(uint8_t event, uint32_t now);
  void settle(const Group *is, uint8_t groups, const Group *was, uint8_t were, uint32_t now);
  ET_ALONE void adopt(const Transmission &next, uint32_t now);
  ET_ALONE void fall_back(uint32_t now);
  ET_ALONE bool load_kept(Transmission &to);
  ET_ALONE void look_if_kept();
  ET_ALONE void keep();
  ET_ALONE void count_boot();

  Port &port_;
  Ring<ET_RING_BYTES> ring_;
  Transmission tx_, before_;
  uint32_t due_[GROUPS], sent_at_[GROUPS];
  value_t last_[SENSOR_SLOTS];        // as last sent
  uint16_t pending_;                           // on-change: differ, and not sent yet
  uint16_t silent_;                            // sensors that do not answer
  Sums sums_[SENSOR_SLOTS];
  uint32_t samples_[GROUPS];
  value_t acts_[ET_ACTUATORS ? ET_ACTUATORS : 1];
  Answer answers_[IDS];
  uint8_t answered_;
  uint8_t cause_, events_, fault_;
  bool leased_, kept_, trial_, state_due_, restart_due_, settled_;
  const char *safe_why_;
  uint32_t lease_ms_, renewed_, trial_from_, trial_ms_;
  uint32_t boot_, lost_, version_;
  uint8_t quick_;
  uint32_t sent_;                              // next reading to send
  uint32_t resend_, resend_end_;               // to send again: [resend_, resend_end_)
  uint64_t unix_ms_;                           // of the edge's clock at unix_at_; 0: not set
  uint32_t unix_at_, overflow_at_;
  uint16_t generation_, kept_crc_;
};

}  // namespace et
