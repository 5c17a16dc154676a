/*
 * Included before QuickJS: its numbers of any size are made of 64 bits here as on
 * large machines. Made of 32, bf_set_ui shifts by 32 and is wrong for numbers from
 * 2^63 on.
 */
#include <stdint.h>
#pragma push_macro("INTPTR_MAX")
#undef INTPTR_MAX
#define INTPTR_MAX INT64_MAX
#include "libbf.h"
#pragma pop_macro("INTPTR_MAX")
