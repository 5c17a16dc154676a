// clang --target=wasm32 -O1 -nostdlib -g -gdwarf-5 -fdebug-compilation-dir=/src -Wl,--no-entry -o dwarf5.wasm dwarf5.c
__attribute__((export_name("f"))) int f(int a){ int s=0; for(int i=0;i<a;i++) s+=i*i;
 return s; }
