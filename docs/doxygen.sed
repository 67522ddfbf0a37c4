# The headers say `// what it is` at their top, where Doxygen wants `/// \file`, and behind members, where it wants `///<`.
1s,^// ,/// \\file\n/// ,
1,/^#pragma/s,^// ,/// ,
s,([;\,{])( +)// ,\1\2///< ,
