//! edgetwin
