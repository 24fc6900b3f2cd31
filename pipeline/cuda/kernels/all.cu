// Every kernel, as one unit of compilation.
#include "prepare.cu"
#include "memory.cu"
#include "regions.cu"
#include "labels.cu"
#include "blend.cu"
#include "strips.cu"
#include "code.cu"
