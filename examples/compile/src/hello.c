#include <stdio.h>

int main(int count, char **words) {
    printf("hello %s\n", count > 1 ? words[1] : "nobody");
    return 0;
}
