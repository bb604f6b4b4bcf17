// Numbers, names and checksums as they stand on the wire. No buffers: characters go to a sink as
// they are made, so that a line can never be cut in the middle.
#pragma once
#include "et_port.h"

namespace et {

typedef int32_t value_t;
// No value: a sensor that does not answer, a threshold that is not set.
const value_t NONE = INT32_MIN;

inline value_t flash_value(const value_t *flash) {
  value_t value;
  et_flash_copy(&value, flash, sizeof value);
  return value;
}

// CRC-16/CCITT-FALSE; start with 0xFFFF. The check value of "123456789" is 0x29B1.
inline uint16_t crc16(uint16_t crc, uint8_t byte) {
  crc ^= static_cast<uint16_t>(byte) << 8;
  for (uint8_t bit = 0; bit < 8; bit++)
    crc = (crc & 0x8000) ? static_cast<uint16_t>((crc << 1) ^ 0x1021) : static_cast<uint16_t>(crc << 1);
  return crc;
}

inline uint16_t crc16(const void *data, size_t len) {
  uint16_t crc = 0xFFFF;
  for (size_t at = 0; at < len; at++) crc = crc16(crc, static_cast<const uint8_t *>(data)[at]);
  return crc;
}

// Takes the characters of a line.
struct Sink {
  virtual void put(char c) = 0;

 protected:
  ~Sink() {}
};

// Writes JSON with names and numbers only. `first` tells whether a comma is due.
class Writer {
 public:
  explicit Writer(Sink &sink) : sink_(sink), first_(true) {}

  void open() { sink_.put('{'); first_ = true; }
  void close() { sink_.put('}'); first_ = false; }

  void key(const char *flash) {
    comma();
    sink_.put('"');
    text(flash);
    sink_.put('"');
    sink_.put(':');
  }
  // A key that is made of more than one text: between these.
  void begin_key() {
    comma();
    sink_.put('"');
  }
  void end_key() {
    sink_.put('"');
    sink_.put(':');
  }
  void member(const char *flash, uint32_t number) { key(flash); put(number); }
  void member_word(const char *flash, const char *word_in_flash) {
    key(flash);
    sink_.put('"');
    text(word_in_flash);
    sink_.put('"');
  }
  void object(const char *flash) { key(flash); open(); }

  // Characters of a text in flash.
  void text(const char *flash) {
    for (char c; (c = static_cast<char>(et_flash_byte(flash))) != 0; flash++) sink_.put(c);
  }
  void raw(char c) { sink_.put(c); }

  void put(uint32_t number) {
    char digits[10];
    uint8_t len = 0;
    do {
      digits[len++] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number);
    while (len) sink_.put(digits[--len]);
  }

  // `units` / 10^places, without zeros at its end.
  void put_decimal(value_t units, uint8_t places) {
    uint32_t left = static_cast<uint32_t>(units);
    if (units < 0) {
      sink_.put('-');
      left = 0u - left;
    }
    while (places && left % 10 == 0) {
      left /= 10;
      places--;
    }
    uint32_t unit = 1;
    for (uint8_t at = 0; at < places; at++) unit *= 10;
    put(left / unit);
    if (!places) return;
    sink_.put('.');
    for (left %= unit; places--; left %= unit) {
      unit /= 10;
      sink_.put(static_cast<char>('0' + left / unit));
    }
  }

  // Milliseconds since 1970: more digits than `put` has.
  void put_long(uint64_t number) {
    const uint32_t billion = 1000000000UL;
    const uint32_t high = static_cast<uint32_t>(number / billion);
    uint32_t low = static_cast<uint32_t>(number % billion);
    if (!high) return put(low);
    put(high);
    for (uint32_t unit = billion / 10; unit; unit /= 10) {
      sink_.put(static_cast<char>('0' + low / unit));
      low %= unit;
    }
  }

 private:
  void comma() {
    if (!first_) sink_.put(',');
    first_ = false;
  }

  Sink &sink_;
  bool first_;
};

}  // namespace et
