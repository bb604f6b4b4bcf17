#include "et_mqtt.h"

namespace et {

namespace {
const uint32_t KEEP_ALIVE_MS = 15000;
const uint32_t ANSWER_MS = 5000;
const char *const LEAVES[] = {"data", "feat", "ack", "event", "state"};
enum : uint8_t { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, SUBSCRIBE = 0x82, SUBACK = 0x90,
                 PINGREQ = 0xC0 };
}  // namespace

void MqttLink::string(const char *text, const char *more) {
  word(static_cast<uint16_t>(strlen(text) + strlen(more)));
  while (*text) put(*text++);
  while (*more) put(*more++);
}

// Writes the packet whose body is in the buffer, in one piece.
bool MqttLink::finish(uint32_t now) {
  if (full_) return false;
  uint32_t left = static_cast<uint32_t>(len_ - HEAD);
  uint8_t head[HEAD];
  uint8_t head_len = 0;
  head[head_len++] = type_;
  do {
    uint8_t digit = left & 0x7F;
    left >>= 7;
    if (left) digit |= 0x80;
    head[head_len++] = digit;
  } while (left);
  uint8_t *from = buffer_ + HEAD - head_len;
  memcpy(from, head, head_len);
  const size_t len = static_cast<size_t>(len_ - HEAD + head_len);
  said_ = now;
  if (client_.write(from, len) == len) return true;
  drop();
  return false;
}

void MqttLink::begin(Kind kind, uint32_t seq) {
  const bool state = kind == STATE;
  // What the edge asked for again is behind what was sent on this connection. It goes at QoS 0:
  // the edge asks once more if it has to.
  const bool again = fresh_ && static_cast<int32_t>(seq - newest_) <= 0;
  counted_ = (kind == SAMPLE || kind == FEATURE) && !again;
  start(static_cast<uint8_t>(PUBLISH | (counted_ || state ? 0x02 : 0) | (state ? 0x01 : 0)));
  string(prefix_, LEAVES[kind]);
  if (counted_ || state) {
    word(next_packet_);
    if (counted_) {
      if (!flying_) first_ = seq;
      flights_[flying_].packet = next_packet_;
      flights_[flying_].done = false;
      flying_++;
      newest_ = seq;
      fresh_ = true;
    }
    if (++next_packet_ == 0) next_packet_ = 1;
  }
}

void MqttLink::end() {
  if (finish(now_)) return;
  if (!full_) return;  // the connection is gone; what was not acknowledged is sent again
  // A line that does not fit is never cut: an event says so in its place.
  start(PUBLISH);
  string(prefix_, "event");
  const char *text = "{\"k\":\"x\",\"boot\":0,\"ms\":0,\"ev\":\"fault\",\"why\":\"line\"}";
  while (*text) put(*text++);
  finish(now_);
  if (counted_) flights_[flying_ - 1].done = true;
}

void MqttLink::greet(Node &node, uint32_t now) {
  start(CONNECT);
  string("MQTT");
  put(4);
  // Clean session, last will at QoS 1, retained; user and password if there are any.
  put(static_cast<char>(0x02 | 0x04 | 0x08 | 0x20 | (*user_ ? 0xC0 : 0)));
  word(static_cast<uint16_t>(KEEP_ALIVE_MS / 1000 * 2));
  string(id_);
  string(prefix_, "state");
  char will[32] = "{\"up\":0,\"boot\":";
  char digits[11];
  uint8_t count = 0;
  uint32_t boot = node.boot();
  do {
    digits[count++] = static_cast<char>('0' + boot % 10);
    boot /= 10;
  } while (boot);
  uint8_t at = static_cast<uint8_t>(strlen(will));
  while (count) will[at++] = digits[--count];
  will[at++] = '}';
  will[at] = 0;
  string(will);
  if (*user_) {
    string(user_);
    string(password_);
  }
  if (finish(now)) state_ = GREETING;
}

void MqttLink::poll(Node &node, uint32_t now, bool network) {
  now_ = now;
  if (state_ != AWAY && (!network || !client_.connected())) drop();
  if (state_ == AWAY) {
    // 0.25 s to 8 s apart, spread over the nodes so that they do not all come at once.
    const uint32_t wait = 250UL << (tries_ < 5 ? tries_ : 5);
    uint32_t spread = 0;
    for (const char *c = id_; *c; c++) spread = spread * 31 + static_cast<uint8_t>(*c);
    if (!network || (tries_ && now - tried_ < wait + spread % wait)) return;
    tried_ = now;
    if (tries_ < 0xFF) tries_++;
    in_ = want_ = 0;
    head_len_ = 0;
    if (!client_.connect(host_, port_)) return;
    heard_ = now;
    greet(node, now);
    return;
  }
  take(node, now);
  if (state_ != UP) {
    if (state_ != AWAY && now - tried_ > ANSWER_MS) drop();
    return;
  }
  if (now - said_ > KEEP_ALIVE_MS) {
    start(PINGREQ);
    finish(now);
  }
  // Two of ours without a word: the connection is dead, whatever TCP says.
  if (now - heard_ > 2 * KEEP_ALIVE_MS + ANSWER_MS) drop();
}

void MqttLink::take(Node &node, uint32_t now) {
  for (uint16_t budget = 1024; budget && client_.available() > 0; budget--) {
    const int byte = client_.read();
    if (byte < 0) return;
    if (!want_) {
      head_[head_len_++] = static_cast<uint8_t>(byte);
      if (head_len_ == 1) continue;
      if (byte & 0x80) {
        if (head_len_ == sizeof head_) return drop();
        continue;
      }
      uint32_t len = 0;
      for (uint8_t i = 1; i < head_len_; i++) len |= static_cast<uint32_t>(head_[i] & 0x7F) << (7 * (i - 1));
      in_ = 0;
      want_ = len;
      if (!len) {
        packet(node, now);
        head_len_ = 0;
      }
    } else {
      // A packet that does not fit is read to its end and forgotten.
      if (in_ < sizeof received_) received_[in_] = static_cast<uint8_t>(byte);
      if (++in_ == want_) {
        want_ = 0;
        if (in_ <= sizeof received_) packet(node, now);
        head_len_ = 0;
        in_ = 0;
      }
    }
    if (state_ == AWAY) return;
  }
}

void MqttLink::packet(Node &node, uint32_t now) {
  heard_ = now;
  const uint8_t type = head_[0] & 0xF0;
  if (type == CONNACK && state_ == GREETING) {
    if (in_ < 2 || received_[1] != 0) return drop();
    start(SUBSCRIBE);
    word(next_packet_);
    if (++next_packet_ == 0) next_packet_ = 1;
    string(prefix_, "cmd");
    put(1);
    string(prefix_, "desired");
    put(1);
    if (finish(now)) state_ = SUBSCRIBING;
  } else if (type == (SUBACK & 0xF0) && state_ == SUBSCRIBING) {
    state_ = UP;
    tries_ = 0;
    // What was on its way may be lost: it goes again, with the same numbers.
    node.connected();
    flying_ = 0;
    fresh_ = false;
  } else if (type == PUBACK && in_ >= 2) {
    const uint16_t id = static_cast<uint16_t>(received_[0] << 8 | received_[1]);
    for (uint8_t i = 0; i < flying_; i++)
      if (flights_[i].packet == id) flights_[i].done = true;
    while (flying_ && flights_[0].done) {
      for (uint8_t i = 1; i < flying_; i++) flights_[i - 1] = flights_[i];
      flying_--;
      first_++;
    }
  } else if (type == PUBLISH) {
    const uint8_t qos = head_[0] >> 1 & 3;
    const uint16_t topic = in_ >= 2 ? static_cast<uint16_t>(received_[0] << 8 | received_[1]) : 0xFFFF;
    const uint32_t from = 2u + topic + (qos ? 2 : 0);
    if (from > in_) return drop();
    if (qos) {
      // Before it is obeyed: a command that restarts the node must not come again.
      start(PUBACK);
      put(static_cast<char>(received_[from - 2]));
      put(static_cast<char>(received_[from - 1]));
      finish(now);
    }
    const size_t prefix = strlen(prefix_);
    if (topic <= prefix || memcmp(received_ + 2, prefix_, prefix)) return;
    const char *leaf = reinterpret_cast<const char *>(received_ + 2 + prefix);
    const size_t leaf_len = topic - prefix;
    char body[ET_RECEIVE_MAX + 1];
    const size_t len = in_ - from;
    memcpy(body, received_ + from, len);
    body[len] = 0;
    if (strlen(body) != len) return;
    if (leaf_len == 3 && !memcmp(leaf, "cmd", 3)) {
      node.command(body, now);
    } else if (leaf_len == 7 && !memcmp(leaf, "desired", 7)) {
      // {"version":n,"cmd":"0 prog …"}: two members of known form, in any order.
      const char *version = strstr(body, "\"version\":");
      char *cmd = strstr(body, "\"cmd\":\"");
      if (!version || !cmd) return;
      version += 10;
      while (*version == ' ') version++;
      uint32_t number = 0;
      for (; *version >= '0' && *version <= '9'; version++) number = number * 10 + static_cast<uint8_t>(*version - '0');
      cmd += 7;
      char *end = strchr(cmd, '"');
      if (!end) return;
      *end = 0;
      node.desired(number, cmd, now);
    }
  }
}

}  // namespace et
