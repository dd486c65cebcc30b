// Of the threads of a process, only the one that calls fork() lives on in the child.
#pragma once

namespace latens {

// Sees to it that the child of a fork can use threads as if it were the first; once for a process.
void expect_forks();

// How many forks lie between this process and the one that called `expect_forks`.
unsigned forks();

}  // namespace latens
