lib_SRC := $(wildcard lib/*.c)
