// MQTT 3.1.1 over any Client: last will, publishing at QoS 0 and 1, one subscription at QoS 1. Each
// packet is one write, since many small ones cost a round trip each on some stacks. Nothing here
// waits: `poll` does what can be done.
#pragma once
#include <Arduino.h>
#include <Client.h>
#include "et_core.h"

namespace et {

class MqttLink : public Port {
 public:
  explicit MqttLink(Client &client)
      : client_(client), state_(AWAY), len_(0), full_(false), in_(0), want_(0),
        next_packet_(1), first_(0), flying_(0), tried_(0), heard_(0), said_(0), tries_(0), fresh_(false) {}

  // `prefix` ends with a slash: et/v1/<namespace>/<name>/. Both stay where they are.
  void configure(const char *host, uint16_t port, const char *id, const char *prefix, const char *user,
                 const char *password) {
    host_ = host;
    port_ = port;
    id_ = id;
    prefix_ = prefix;
    user_ = user;
    password_ = password;
  }

  void poll(Node &node, uint32_t now, bool network);
  bool up() const { return state_ == UP; }
  void drop() {
    client_.stop();
    state_ = AWAY;
  }

  void put(char c) override {
    if (len_ == sizeof buffer_) {
      full_ = true;
      return;
    }
    buffer_[len_++] = static_cast<uint8_t>(c);
  }
  bool ready(Kind kind) override {
    if (state_ != UP) return false;
    return (kind != SAMPLE && kind != FEATURE) || flying_ < ET_IN_FLIGHT;
  }
  void begin(Kind kind, uint32_t seq) override;
  void end() override;
  uint32_t acknowledged(uint32_t sent) override { return flying_ ? first_ : sent; }

 private:
  enum State : uint8_t { AWAY, GREETING, SUBSCRIBING, UP };
  // Room for the fixed header, which is written when the length is known.
  static const uint16_t HEAD = 5;

  void start(uint8_t type) {
    type_ = type;
    len_ = HEAD;
    full_ = false;
  }
  bool finish(uint32_t now);
  void word(uint16_t number) {
    put(static_cast<char>(number >> 8));
    put(static_cast<char>(number));
  }
  void string(const char *text, const char *more = "");
  void greet(Node &node, uint32_t now);
  void take(Node &node, uint32_t now);
  void packet(Node &node, uint32_t now);

  Client &client_;
  const char *host_, *id_, *prefix_, *user_, *password_;
  uint16_t port_;
  State state_;
  uint8_t buffer_[ET_LINE_MAX];
  uint16_t len_;
  bool full_;
  uint8_t type_;
  bool counted_;
  uint8_t received_[ET_RECEIVE_MAX];
  uint32_t in_, want_;
  uint8_t head_[5], head_len_ = 0;
  uint16_t next_packet_;
  // Readings on their way: packet identifiers of consecutive sequence numbers from `first_` on.
  uint32_t first_, newest_ = 0;
  uint8_t flying_;
  struct Flight { uint16_t packet; bool done; } flights_[ET_IN_FLIGHT];
  uint32_t tried_, heard_, said_;
  uint8_t tries_;
  bool fresh_;
  uint32_t now_ = 0;
};

}  // namespace et
