// The I2C bus at 100 kHz: a few bytes to or from a part. Every wait has an end, so that a part which
// holds the bus costs milliseconds and not the node.
#pragma once
#include "et_driver.h"
#ifdef __AVR__
#include <avr/interrupt.h>
#include <util/twi.h>
#else
#include <Wire.h>
#endif

#ifdef __AVR__
namespace et { namespace i2c { static volatile bool done; } }

// A step came to its end. The flag stays up, so that the bus waits; asking for the interrupt does not.
ISR(TWI_vect) {
  TWCR = _BV(TWEN);
  et::i2c::done = true;
}
#endif

namespace et {
namespace i2c {

#ifdef __AVR__

const uint8_t SDA_PIN = 18, SCL_PIN = 19;  // A4, A5

// Frees the bus from a part that was cut off in the middle of a byte: it sends the rest of it.
inline ET_ALONE void begin() {
  TWCR = 0;
  pinMode(SDA_PIN, INPUT_PULLUP);
  for (uint8_t i = 0; i < 9 && digitalRead(SDA_PIN) == LOW; i++) {
    digitalWrite(SCL_PIN, LOW);
    pinMode(SCL_PIN, OUTPUT);
    delayMicroseconds(5);
    pinMode(SCL_PIN, INPUT_PULLUP);
    delayMicroseconds(5);
  }
  pinMode(SCL_PIN, INPUT_PULLUP);
  TWSR = 0;
  TWBR = static_cast<uint8_t>((F_CPU / 100000UL - 16) / 2);
}

// One step of the bus; its state afterwards, 0 if it does not end.
inline ET_ALONE uint8_t step(uint8_t control) {
  done = false;
  TWCR = static_cast<uint8_t>(control | _BV(TWINT) | _BV(TWEN) | _BV(TWIE));
  for (uint16_t turns = 0; turns < 4000; turns++)  // 2 ms; a byte takes 90 us
    if (done) return TW_STATUS;
  begin();
  return 0;
}

inline ET_ALONE void stop() {
  TWCR = _BV(TWINT) | _BV(TWEN) | _BV(TWSTO);
  for (uint8_t turns = 0; turns < 100 && (TWCR & _BV(TWSTO)); turns++) {
  }
}

inline ET_ALONE bool open(uint8_t address_and_direction) {
  const uint8_t state = step(_BV(TWSTA));
  if (state != TW_START && state != TW_REP_START) return false;
  TWDR = address_and_direction;
  // The last one never follows an address on silicon; simavr 1.6 reports it.
  const uint8_t then = step(0);
  return then == TW_MT_SLA_ACK || then == TW_MR_SLA_ACK || then == TW_MT_DATA_ACK;
}

inline ET_ALONE bool write(uint8_t address, const uint8_t *bytes, uint8_t len) {
  bool good = open(static_cast<uint8_t>(address << 1));
  for (uint8_t i = 0; good && i < len; i++) {
    TWDR = bytes[i];
    good = step(0) == TW_MT_DATA_ACK;
  }
  stop();
  return good;
}

inline ET_ALONE bool read(uint8_t address, uint8_t *bytes, uint8_t len) {
  bool good = open(static_cast<uint8_t>(address << 1 | 1));
  for (uint8_t i = 0; good && i < len; i++) {
    const bool last = i + 1 == len;
    good = step(last ? 0 : _BV(TWEA)) == (last ? TW_MR_DATA_NACK : TW_MR_DATA_ACK);
    bytes[i] = TWDR;
  }
  stop();
  return good;
}

#else

inline void begin() {
  Wire.begin();
  Wire.setTimeOut(5);
}

inline bool write(uint8_t address, const uint8_t *bytes, uint8_t len) {
  Wire.beginTransmission(address);
  for (uint8_t i = 0; i < len; i++) Wire.write(bytes[i]);
  return Wire.endTransmission() == 0;
}

inline bool read(uint8_t address, uint8_t *bytes, uint8_t len) {
  if (Wire.requestFrom(address, len) != len) return false;
  for (uint8_t i = 0; i < len; i++) bytes[i] = static_cast<uint8_t>(Wire.read());
  return true;
}

#endif

}  // namespace i2c

// A part on the bus that measures by itself once it was started. A reading that does not come is tried
// again; after three of them the part is started anew, and there is no value until it answers.
class OnBus : public Paced {
 public:
  OnBus(uint8_t address, uint16_t period) : Paced(period), address_(address), misses_(0) {}

 protected:
  // Whether there is no value any more: the part is to be started again.
  bool missed() {
    if (misses_ < 3) misses_++;
    return misses_ == 3;
  }
  void answered() { misses_ = 0; }

  uint8_t address_;

 private:
  uint8_t misses_;
};

}  // namespace et
