// The same guest as C++: the header serves both.
#include "../c/mirror.c"
