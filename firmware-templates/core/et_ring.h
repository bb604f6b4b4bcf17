// Readings that are not safe with the edge yet, and those that it may ask for again. Records of
// different length in a ring of bytes; the oldest make room. Their sequence numbers are
// consecutive, so only the newest is kept.
#pragma once
#include "et_line.h"

namespace et {

// Longest record: length, time, program, mask, count, and four numbers of ten bytes a property.
template <uint16_t BYTES>
class Ring {
 public:
  Ring() : head_(0), used_(0), count_(0), next_(0) {}

  uint32_t next() const { return next_; }             // sequence number of the next record
  uint32_t oldest() const { return next_ - count_; }  // of the oldest kept; `next()` if none
  uint16_t count() const { return count_; }

  // Appends a record, and calls `dropped(seq)` for each that makes room for it.
  template <typename Dropped>
  void push(const uint8_t *record, uint8_t len, Dropped dropped) {
    while (count_ && static_cast<uint16_t>(BYTES - used_) < len + 1u) {
      dropped(oldest());
      const uint16_t gone = static_cast<uint16_t>(at(head_) + 1u);
      head_ = wrap(head_, gone);
      used_ = static_cast<uint16_t>(used_ - gone);
      count_--;
    }
    next_++;
    if (static_cast<uint16_t>(BYTES - used_) < len + 1u) {
      dropped(next_ - 1);  // larger than the whole ring
      return;
    }
    uint16_t to = wrap(head_, used_);
    put(to, len);
    for (uint8_t i = 0; i < len; i++) {
      to = wrap(to, 1);
      put(to, record[i]);
    }
    used_ = static_cast<uint16_t>(used_ + len + 1u);
    count_++;
  }

  // Copies the record `seq`; its length, 0 if it is not there.
  uint8_t copy(uint32_t seq, uint8_t *to) const {
    uint32_t index = seq - oldest();
    if (index >= count_) return 0;
    uint16_t from = head_;
    while (index--) from = wrap(from, static_cast<uint16_t>(at(from) + 1u));
    const uint8_t len = at(from);
    for (uint8_t i = 0; i < len; i++) {
      from = wrap(from, 1);
      to[i] = at(from);
    }
    return len;
  }

 private:
  static uint16_t wrap(uint16_t from, uint16_t by) {
    const uint32_t to = static_cast<uint32_t>(from) + by;
    return static_cast<uint16_t>(to >= BYTES ? to - BYTES : to);
  }
  uint8_t at(uint16_t where) const { return bytes_[where]; }
  void put(uint16_t where, uint8_t byte) { bytes_[where] = byte; }

  uint8_t bytes_[BYTES];
  uint16_t head_, used_;
  uint16_t count_;
  uint32_t next_;
};

// Numbers in seven-bit groups, small ones short; negative ones as odd numbers.
class Packer {
 public:
  explicit Packer(uint8_t *to) : at_(to), begin_(to) {}
  uint8_t len() const { return static_cast<uint8_t>(at_ - begin_); }
  void put(uint32_t number) {
    for (; number > 0x7F; number >>= 7) *at_++ = static_cast<uint8_t>(number | 0x80);
    *at_++ = static_cast<uint8_t>(number);
  }
  void put_signed(int32_t number) {
    put((static_cast<uint32_t>(number) << 1) ^ (number < 0 ? 0xFFFFFFFFUL : 0));
  }

 private:
  uint8_t *at_, *begin_;
};

class Unpacker {
 public:
  explicit Unpacker(const uint8_t *from) : at_(from) {}
  uint32_t get() {
    uint32_t number = 0;
    for (uint8_t shift = 0;; shift = static_cast<uint8_t>(shift + 7)) {
      const uint8_t byte = *at_++;
      number |= static_cast<uint32_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return number;
    }
  }
  int32_t get_signed() {
    const uint32_t number = get();
    return static_cast<int32_t>((number >> 1) ^ ((number & 1) ? 0xFFFFFFFFUL : 0));
  }

 private:
  const uint8_t *at_;
};

}  // namespace et
